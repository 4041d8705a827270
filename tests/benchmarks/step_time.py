"""Step time of the embedded Kyrgyz job before and after a change, in one run.

    python tests/benchmarks/step_time.py --before f71db74

The earlier version is checked out beside this one. Both train the same updates of recipes/ky_phoneme.py, by turns, each in a process of its
own; the table gives the milliseconds per update of every round, without evaluation and start. The embedded corpus is made once
and kept in the cache.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

REPOSITORY = Path(__file__).parents[2]
# evaluation, saving and the check of every clip are left out: what is timed is the steps
FLAGS = [
    "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false", "--report_to", "none", "--disable_tqdm", "true",
]  # fmt: skip
# the first updates find threads and memory cold
WARM_UP = 20
STEPS = """
import runpy, sys, time
from transformers import TrainerCallback
import hfasr
from hfasr.training import trainer
warm_up, updates, tree = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
assert hfasr.__file__.startswith(tree), hfasr.__file__
class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == warm_up:
            self.start = time.perf_counter()
        elif state.global_step == updates:
            print("ms", 1000 * (time.perf_counter() - self.start) / (updates - warm_up), flush=True)
            import os
            os._exit(0)
before = trainer.CTCTrainer.__init__
def start(self, *args, **kwargs):
    before(self, *args, **kwargs)
    self.add_callback(Clock())
trainer.CTCTrainer.__init__ = start
sys.argv = [f"{tree}/recipes/ky_phoneme.py", *sys.argv[4:]]
sys.path.insert(0, f"{tree}/recipes")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def milliseconds(tree: Path, updates: int, flags: list[str]) -> float:
    """Return the time of one update of the recipe in a source tree."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", STEPS, str(WARM_UP), str(updates), str(tree), "--output_dir", f"{folder}/run", *FLAGS, *flags]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        process = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    times = [line.split()[1] for line in process.stdout.splitlines() if line.startswith("ms ")]
    if not times:
        raise SystemExit(f"{tree}: no time was printed\n{process.stderr[-3000:]}")
    return float(times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="commit of the earlier version")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options, flags = parser.parse_known_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder, "before")
        subprocess.run(["git", "worktree", "add", "--detach", "-q", earlier, options.before], cwd=REPOSITORY, check=True)
        try:
            trees = {"before": earlier, "after": REPOSITORY}
            found = {name: [] for name in trees}
            for number in range(options.rounds):
                for name in list(trees)[:: 1 if number % 2 == 0 else -1]:
                    found[name].append(milliseconds(trees[name], options.updates, flags))
                print(f"round {number + 1}: " + ", ".join(f"{name} {times[-1]:.1f} ms" for name, times in found.items()), flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", earlier], cwd=REPOSITORY, check=False)
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(
        "median of an update: before {before:.1f} ms, after {after:.1f} ms, {ratio:.2f} times".format(
            **medians, ratio=medians["before"] / medians["after"]
        )
    )
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
