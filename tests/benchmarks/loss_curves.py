"""Loss curves of the same training in three ways: eager, with compiled layers, and by two processes.

    python tests/benchmarks/loss_curves.py --figure loss_curves.png

recipes/ky_phoneme.py on a part of the embedded corpus, from random weights, dropout and masks off, since each way draws other random
numbers. Updates hold the same rows in all three: `--update_seconds` gives one process twice the accumulation of two. On a CPU; the table
gives the loss by update and the largest difference from the first way, relative to it. The figure needs `pip install -e ".[plots]"`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hfasr.corpora import embedded

REPOSITORY = Path(__file__).parents[2]
STILL = {
    "unispeech-tiny": {
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
        "layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0,
    },
    "quartznet-small": {"dropout": 0.0, "freq_masks": 0, "time_masks": 0},
}  # fmt: skip
# Adam divides by the size of a gradient, and that of a weight before batch norm is nothing but rounding along the weight: it would make
# large steps of it, another way each time.
OPTIMIZER = {"unispeech-tiny": ["--learning_rate", "1e-3"], "quartznet-small": ["--optim", "sgd", "--learning_rate", "0.005"]}
WAYS = {
    "eager, 1 process": (1, ["--compile", "off"]),
    "compiled, 1 process": (1, ["--compile", "dynamic"]),
    "eager, 2 processes": (2, ["--compile", "off"]),
}


def curve(model: str, corpus: Path, processes: int, flags: list[str], updates: int, folder: Path) -> list[tuple[int, float]]:
    """Train and return (update, loss)."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    launcher += ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else ["--cpu"]
    command = [
        *launcher, "recipes/ky_phoneme.py", "--corpus", str(corpus), "--base_model", model, "--model_config", json.dumps(STILL[model]),
        "--output_dir", str(folder), "--max_steps", str(updates), "--update_seconds", "24", "--max_batch_seconds", "12",
        *OPTIMIZER[model], "--logging_steps", "5",
        "--eval_strategy", "no", "--save_strategy", "steps", "--save_steps", str(updates), "--load_best_model_at_end", "false",
        "--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "true", "--test_splits", "validation", *flags,
    ]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(process.stderr[-4000:])
    recipe = json.loads((folder / "recipe.json").read_text())
    if recipe["processes"] != processes:
        raise SystemExit(f"{recipe['processes']} processes ran, expected {processes}")
    state = json.loads((folder / f"checkpoint-{updates}" / "trainer_state.json").read_text())
    return [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]


def draw(curves: dict[str, dict[str, list[tuple[int, float]]]], path: Path) -> None:
    from hfasr.extras import require

    require("matplotlib", extra="plots")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(5 * len(curves), 3.5), squeeze=False)
    for axis, (model, ways) in zip(axes[0], curves.items(), strict=True):
        for (name, points), style in zip(ways.items(), ("-", "--", ":"), strict=False):
            axis.plot(*zip(*points, strict=True), style, label=name, linewidth=2)
        axis.set_title(model)
        axis.set_xlabel("update")
        axis.set_ylabel("CTC loss per label")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(STILL), choices=list(STILL))
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--figure", type=Path, help="PNG or SVG file to draw")
    parser.add_argument("--json", type=Path, help="write the curves here too")
    options = parser.parse_args()
    corpus = embedded("ky", seed=1, utterances={"train": 96, "dev": 6, "test": 6})
    curves: dict[str, dict] = {}
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            ways = curves[model] = {
                name: curve(model, corpus, processes, flags, options.updates, Path(folder, str(number)))
                for number, (name, (processes, flags)) in enumerate(WAYS.items())
            }
        first, *others = ways
        print(f"{model}\n{'update':>7}" + "".join(f"{name:>22}" for name in ways))
        for points in zip(*ways.values(), strict=True):
            print(f"{points[0][0]:>7}" + "".join(f"{loss:>22.6f}" for _, loss in points))
        for name in others:
            largest = max(abs(loss - known) / abs(known) for (_, known), (_, loss) in zip(ways[first], ways[name], strict=True))
            print(f"'{name}' differs from '{first}' by at most {largest:.1e} of the loss", flush=True)
    if options.json:
        options.json.write_text(json.dumps(curves))
    if options.figure:
        draw(curves, options.figure)


if __name__ == "__main__":
    main()
