"""Kazakh letters learned from an imported English QuartzNet, beside the same encoder with a random head, and beside random weights.

    python tests/benchmarks/transfer.py
    python tests/benchmarks/transfer.py --english_flags "--max_steps 4" --flags "--max_steps 4" --every 2

There is no trained English checkpoint to be had here, so recipes/en_char.py makes one on the embedded English corpus; it is
written as a .nemo archive and imported from that. Then recipes/kk_char.py runs three times on the embedded Kazakh corpus with equal
numbers and seeds. The table gives loss and CER of the validation split by update, and the updates until the CER of the slower ones.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path

import torch
import yaml

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "models")]

import recipe_runs  # noqa: E402
from nemo_files import front_end_buffers, nemo_config, saved, write_archive  # noqa: E402

from hfasr.models.load import load_model  # noqa: E402
from hfasr.models.nemo import nemo_names  # noqa: E402

STARTS = ("English, rows kept and paired", "English encoder, random head", "all random")


def run(name: str, *flags: str | Path) -> list[dict]:
    """Run a recipe with further flags; return what its evaluations during training found."""
    recipe_runs.run(name, "--report_to", "none", "--disable_tqdm", "true", *flags)
    folder = Path(flags[flags.index("--output_dir") + 1])
    newest = max(folder.glob("checkpoint-*"), key=lambda checkpoint: int(checkpoint.name.partition("-")[2]))
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "eval_cer" in entry]


def write_nemo(path: Path, model, processor) -> Path:
    """Write a trained QuartzNet of characters as NeMo would have saved it, its blank last."""
    tokenizer, extractor = processor.tokenizer, processor.feature_extractor
    symbols = [symbol.replace("|", " ") for symbol in tokenizer.convert_ids_to_tokens(range(1, len(tokenizer)))]
    options = nemo_config(model.config, symbols, window_size=extractor.window_length / extractor.sampling_rate)
    state = model.state_dict()
    weights = {theirs: state[ours] for theirs, ours in nemo_names(model.config).items()}
    for name in ("decoder.decoder_layers.0.weight", "decoder.decoder_layers.0.bias"):
        weights[name] = weights[name].roll(-1, 0)
    weights["decoder.decoder_layers.0.weight"] = weights["decoder.decoder_layers.0.weight"].unsqueeze(-1)
    members = {"model_config.yaml": yaml.dump(options, allow_unicode=True, sort_keys=False).encode()}
    members["model_weights.ckpt"] = saved(front_end_buffers(options["preprocessor"]) | weights)
    return write_archive(path, members)


def starting_points(work: Path, english: Path) -> dict[str, list[str | Path]]:
    """Return the flags of each start: the archive; the imported model without its tokenizer, so that no row can be kept; none."""
    archive = write_nemo(work / "english.nemo", *load_model(english))
    model, processor = load_model(archive)
    model.save_pretrained(work / "no_tokenizer")
    processor.feature_extractor.save_pretrained(work / "no_tokenizer")
    flags = (["--base_model", archive], ["--base_model", work / "no_tokenizer"], ["--base_model", "quartznet-small"])
    return dict(zip(STARTS, flags, strict=True))


def print_table(curves: dict[str, list[dict]]) -> None:
    print(f"{'update':>6}" + "".join(f" | {name:>35}" for name in curves))
    print(f"{'':>6}" + f" | {'loss':>17}{'CER':>18}" * len(curves))
    for rows in zip(*curves.values(), strict=True):
        print(f"{rows[0]['step']:>6}" + "".join(f" | {row['eval_loss']:>17.3f}{100 * row['eval_cer']:>16.1f} %" for row in rows))
    for other in STARTS[1:]:
        best = min(row["eval_cer"] for row in curves[other])
        reached = [next((row["step"] for row in curves[name] if row["eval_cer"] <= best), None) for name in (STARTS[0], other)]
        print(f"CER {100 * best:.1f} %, the best of '{other}': after {reached[1]} updates; '{STARTS[0]}' after {reached[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--english_flags", default="", help="more flags for en_char.py")
    parser.add_argument("--flags", default="", help="more flags for kk_char.py")
    parser.add_argument("--every", type=int, default=50, help="updates between evaluations")
    parser.add_argument("--learning_rate", default="1e-3", help="of all three runs")
    parser.add_argument("--output_dir", type=Path, help="keep the runs here; a run of English that is there is taken as it is")
    options = parser.parse_args()
    steps = ["--eval_strategy", "steps", "--eval_steps", options.every, "--save_strategy", "steps", "--save_steps", options.every]
    same = ["--learning_rate", options.learning_rate, "--eval_on_start", "true", *steps, *shlex.split(options.flags)]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        work = options.output_dir or Path(folder)
        english = work / "english"
        if not (english / "results.json").exists():
            run("en_char", "--output_dir", english, *shlex.split(options.english_flags))
        curves = {}
        for number, (name, flags) in enumerate(starting_points(work, english).items()):
            curves[name] = run("kk_char", "--output_dir", work / f"kazakh{number}", *flags, *same)
        print_table(curves)


if __name__ == "__main__":
    main()
