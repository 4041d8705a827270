"""PER with and without CR-CTC, a moving average of the weights, both, and averaged checkpoints, at one cost.

    python tests/benchmarks/regularisation.py [--variants plain consistency ...] [--seeds 1 2 3] [--updates 1000] [--results FILE]

Each run trains the small QuartzNet of recipes/ky_phoneme.py from random weights on the embedded Kyrgyz corpus, with the recipe's
numbers but for smaller batches and a fixed number of updates, and recognises the validation and test splits with the weights it
ends with. All variants have as many updates of as many padded seconds, which the table states as counted: a consistency run has
each row twice in a batch, and so makes half as many passes over the corpus. A seed decides the weights, the order and what is
masked. Nothing is chosen by the results: no best checkpoint, no early stop.

Every finished run is added to the results file, JSON, and runs that it holds are not run again, so that the whole can be made in
parts; the table is of all that it holds for these updates. Label smoothing, and CR-CTC with more time masks, are run when named.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import set_seed

from hfasr.corpora import load_embedded
from hfasr.corpora.rows import iter_values
from hfasr.corpora.targets import add_target
from hfasr.evaluation.metrics import error_rate
from hfasr.files import write_text
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, target_record
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.trainer import CTCTrainer

# smaller batches than the recipe's, for more updates at the same cost: training leaves the plateau of all blanks by updates
BATCH_SECONDS = 24.0
# recipes/ky_phoneme.py, FROM_SCRATCH and SPEC_AUGMENT
NUMBERS = {"learning_rate": 5e-3, "weight_decay": 1e-3, "tri_stage": [0.06, 0.44, 0.5], "tri_stage_final_scale": 0.02}
MASKS = {"freq_masks": 2, "freq_width": 12, "time_masks": 3, "time_width": 0.05, "ctc_zero_infinity": True}

CONSISTENCY = {"consistency": 0.2}
AVERAGE = {"ema_decay": 0.97}
HELD = {"tri_stage": [0.06, 0.94, 0.0]}  # an average is said to stand in for the decay of the learning rate
CHECKPOINTS = 5
# name -> numbers of the run, fields of the model's configuration
VARIANTS = {
    "plain": ({}, {}),
    "consistency": (CONSISTENCY, {}),
    "average": (AVERAGE, {}),
    "both": (CONSISTENCY | AVERAGE, {}),
    "checkpoints": ({"average_checkpoints": CHECKPOINTS, "save_total_limit": CHECKPOINTS}, {}),
    "held": (HELD, {}),
    "held_average": (HELD | AVERAGE, {}),
    "held_both": (HELD | CONSISTENCY | AVERAGE, {}),
    "smoothing": ({"label_smoothing_factor": 0.01}, {}),
    "more_masks": (CONSISTENCY, {"time_masks": 8}),  # the paper's 2.5 times
}
USUAL = ["plain", "consistency", "average", "both", "checkpoints", "held", "held_average"]
MEANING = {
    "plain": "CTC alone",
    "consistency": "CR-CTC, weight 0.2",
    "average": "moving average, decay 0.97",
    "both": "CR-CTC and moving average",
    "checkpoints": f"mean of the last {CHECKPOINTS} checkpoints, a fiftieth of the updates apart",
    "held": "learning rate never lowered",
    "held_average": "learning rate never lowered, moving average",
    "held_both": "learning rate never lowered, CR-CTC and moving average",
    "smoothing": "label smoothing 0.01",
    "more_masks": "CR-CTC with 8 time masks for 3",
}


def run(variant: str, seed: int, updates: int, threads: int) -> dict:
    """Train and recognise once; return the error rates, and what was trained on in how many seconds."""
    torch.set_num_threads(threads)
    set_seed(seed)
    numbers, settings = VARIANTS[variant]
    phonemizer = Phonemizer("ky", word_bars=False)
    corpus = add_target(load_embedded("ky"), phonemizer)
    targets = list(iter_values(corpus["train"], "target"))
    tokenizer = build_tokenizer(targets, "phoneme", record=target_record(targets, **phonemizer.record))
    model, processor = load_model("quartznet-small", tokenizer, config_overrides=MASKS | settings)
    padded_frames = 0

    def count(model, arguments, inputs):
        nonlocal padded_frames
        if model.training:
            padded_frames += inputs["input_features"].shape[:2].numel()

    with tempfile.TemporaryDirectory() as folder:
        save = {"save_strategy": "steps" if "average_checkpoints" in numbers else "no", "save_steps": max(1, updates // 50)}
        args = CTCTrainingArguments(
            output_dir=folder, max_steps=updates, max_batch_seconds=BATCH_SECONDS, seed=seed, logging_steps=max(1, updates // 10),
            eval_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, **(NUMBERS | save | numbers),
        )  # fmt: skip
        trainer = CTCTrainer(model, args, processor, corpus["train"])
        model.register_forward_pre_hook(count, with_kwargs=True)
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        rates = {
            split: error_rate(list(iter_values(corpus[split], "target")), trainer.transcribe(corpus[split]), "phoneme")
            for split in ("validation", "test")
        }
    return {
        "variant": variant, "seed": seed, "updates": updates, "train_seconds": round(trainer.train_seconds, 1),
        "validation_per": rates["validation"], "test_per": rates["test"], "losses": [round(entry["loss"], 3) for entry in logged],
        "epochs": round(trainer.state.epoch, 2), "padded_hours": round(padded_frames / 100 / 3600, 3),
    }  # fmt: skip


def print_table(results: list[dict]) -> None:
    """Print PER by variant and seed, and how far each seed's differs from that of the plain run of the same learning rates."""
    test_pers = {(result["variant"], result["seed"]): 100 * result["test_per"] for result in results}
    print("| | seeds | validation PER, % | test PER, % | test, by seed | test against the same without | passes | padded audio, h | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for variant, meaning in MEANING.items():
        own = sorted((result for result in results if result["variant"] == variant), key=lambda result: result["seed"])
        if not own:
            continue
        validation, test = (statistics.mean(100 * result[f"{split}_per"] for result in own) for split in ("validation", "test"))
        by_seed = ", ".join(f"{100 * result['test_per']:.2f}" for result in own)
        base = {"held_average": "held", "held_both": "held_average"}.get(variant, "plain")
        pairs = [100 * result["test_per"] - test_pers[base, result["seed"]] for result in own if (base, result["seed"]) in test_pers]
        against = f"{statistics.mean(pairs):+.2f} ({min(pairs):+.2f} to {max(pairs):+.2f})" if pairs and variant != base else ""
        passes, hours, seconds = (statistics.mean(result[name] for result in own) for name in ("epochs", "padded_hours", "train_seconds"))
        seeds = ", ".join(str(result["seed"]) for result in own)
        print(
            f"| {meaning} | {seeds} | {validation:.2f} | {test:.2f} | {by_seed} | {against} | {passes:.1f} | {hours:.2f} | {seconds:.0f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=USUAL, help=f"{', '.join(USUAL)} when left out")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--updates", type=int, default=1000, help="of every run, 1000 when left out")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch, all cores when left out")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir(), "hfasr_regularisation.json"), help="file of all runs")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text(encoding="utf-8")) if arguments.results.is_file() else []
    for seed in arguments.seeds:
        for variant in arguments.variants:
            if any((old["variant"], old["seed"], old["updates"]) == (variant, seed, arguments.updates) for old in results):
                continue
            start = time.monotonic()
            results.append(run(variant, seed, arguments.updates, arguments.threads))
            write_text(arguments.results, json.dumps(results, indent=1) + "\n")
            last = results[-1]
            print(f"{variant}, seed {seed}: test PER {100 * last['test_per']:.2f} %, {time.monotonic() - start:.0f} s in all", flush=True)
    print(f"\n{arguments.updates} updates of at most {BATCH_SECONDS:g} padded seconds; {arguments.results}\n")
    print_table([result for result in results if result["updates"] == arguments.updates])


if __name__ == "__main__":
    main()
