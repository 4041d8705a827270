"""`hfasr lm` against KenLM's lmplz: largest difference of any log-probability and back-off, time and memory.

    python tests/benchmarks/lmplz.py --lmplz PATH [--lines 10000] [--large 1000000]

lmplz comes with the source of KenLM (`pip download kenlm --no-binary kenlm`), and builds with CMake and Boost. The text is sentences
drawn as those of the embedded corpora are, Kyrgyz, Kazakh, English and Mandarin in turn. Each model is also read by KenLM, where its
package is there, and by flashlight-text; both must score 200 other sentences as the n-grams of lmplz do. `--large` is the number of
lines, 0 for none, of a text of random words by Zipf's law, for time and memory alone.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np

from hfasr.corpora.synthetic.plan import LANGUAGES
from hfasr.decoding.ngram import estimate_ngram, write_arpa

ORDERS = (1, 2, 3, 4, 5, 6)
PRUNED = {3: ("0 0 1", "0 1", "1"), 5: ("0 0 1", "0 1 1 2")}
_OURS = """
import resource, sys, time
from hfasr.decoding.ngram import estimate_ngram, write_arpa
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
with open(sys.argv[1], encoding="utf-8") as lines:
    ngram = estimate_ngram(lines, int(sys.argv[2]))
estimated = time.perf_counter()
write_arpa(sys.argv[3], ngram)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(map(len, ngram.grams)), estimated - began, time.perf_counter() - estimated, (peak - before) / 1e6)
"""


def sentences(number: int, seed: str = "lmplz") -> list[str]:
    """Draw sentences of four languages, lower case and without punctuation; Mandarin is split into characters."""
    random, lines = Random(seed), []
    for place in range(number):
        language = list(LANGUAGES)[place % len(LANGUAGES)]
        line = " ".join(re.findall(r"\w+", LANGUAGES[language].sentence(random).lower()))
        lines.append(" ".join(line.replace(" ", "")) if LANGUAGES[language].by_character else line)
    return lines


def zipf_text(path: Path, number: int) -> int:
    """Write lines of 12 words drawn by Zipf's law from half a million; return how many words."""
    words = np.random.default_rng(0).zipf(1.2, (number, 12)) % 500_000
    np.savetxt(path, words, fmt="w%d")
    return words.size


def read_arpa(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """Read an ARPA file by its own rules, without any code of ours: n-gram -> log-probability and back-off."""
    found, level, sizes = {}, 0, {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("ngram "):
            order, size = line.removeprefix("ngram ").split("=")
            sizes[int(order)] = int(size)
        elif line.startswith("\\"):
            level = int(line[1]) if line.endswith("-grams:") else 0
        elif level and line:
            fields = line.split("\t")
            words = tuple(fields[1].split(" "))
            assert len(words) == level, line
            assert words not in found, line
            found[words] = float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0
    assert all(sum(len(words) == level for words in found) == size for level, size in sizes.items()), sizes
    return found


def score(model: dict[tuple[str, ...], tuple[float, float]], order: int, line: str) -> float:
    """Return the base-10 logarithm of a sentence's probability: each word by the longest n-gram there is."""
    total, words = 0.0, ["<s>", *(word if (word,) in model else "<unk>" for word in line.split()), "</s>"]
    for end in range(2, len(words) + 1):
        for begin in range(max(0, end - order), end):
            gram = tuple(words[begin:end])
            if gram in model:
                total += model[gram][0]
                break
            total += model.get(gram[:-1], (0.0, 0.0))[1]
    return total


def lmplz(program: str, text: Path, arpa: Path, order: int, prune: str = "") -> None:
    """Run lmplz; a failure is shown."""
    flags = ["--discount_fallback", "-S", "2G", "-T", str(arpa.parent)] + (["--prune", *prune.split()] if prune else [])
    # lmplz would read numbers after --discount_fallback as discounts
    command = [program, "-o", str(order), *flags[1:], flags[0], "--text", str(text), "--arpa", str(arpa)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"lmplz failed: {done.stderr[-500:]}")


def readers(arpa: Path) -> dict:
    """Return what reads an ARPA file on this machine: its name -> a function from a sentence to the logarithm of its probability."""
    found = {}
    try:
        import kenlm
    except ModuleNotFoundError:
        print("the package kenlm is not installed")
    else:
        found["kenlm"] = kenlm.Model(str(arpa)).score
    try:
        from flashlight.lib.text.decoder import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ModuleNotFoundError:
        print("the package flashlight-text is not installed")
    else:
        words = sorted({words[0] for words in read_arpa(arpa) if len(words) == 1})
        dictionary = Dictionary(words)
        model = KenLM(str(arpa), dictionary)

        def flashlight(line: str) -> float:
            state, total = model.start(False), 0.0
            for word in line.split():
                state, change = model.score(state, dictionary.get_index(word if dictionary.contains(word) else "<unk>"))
                total += change
            return total + model.finish(state)[1]

        found["flashlight"] = flashlight
    return found


def compare(program: str, lines: list[str], order: int, prune: str, others: list[str]) -> dict:
    """Estimate one model both ways."""
    with tempfile.TemporaryDirectory() as folder:
        text, theirs, ours = Path(folder, "text"), Path(folder, "theirs.arpa"), Path(folder, "ours.arpa")
        text.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        lmplz(program, text, theirs, order, prune)
        write_arpa(ours, estimate_ngram(lines, order, prune=[int(count) for count in prune.split()]))
        reference, found = read_arpa(theirs), read_arpa(ours)
        if reference.keys() != found.keys():
            raise AssertionError(f"other n-grams: {list(reference.keys() ^ found.keys())[:5]}")
        differences = [np.abs(np.subtract(reference[gram], found[gram])) for gram in reference]
        reading = readers(ours) if order > 1 else {}  # KenLM reads no unigrams
        scores = {name: max(abs(read(line) - score(reference, order, line)) for line in others) for name, read in reading.items()}
        return {
            "order": order,
            "prune": prune,
            "ngrams": len(reference),
            "log_prob": float(max(pair[0] for pair in differences)),
            "backoff": float(max(pair[1] for pair in differences)),
            "scores": scores,
        }


def large(program: str, number: int, order: int) -> None:
    """Print time and memory of both on a large text."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text")
        words = zipf_text(text, number)
        command = [sys.executable, "-c", _OURS, str(text), str(order), str(Path(folder, "ours.arpa"))]
        ngrams, estimate, write, memory = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        began = time.perf_counter()
        lmplz(program, text, Path(folder, "theirs.arpa"), order)
        theirs = time.perf_counter() - began
        print(f"\n{number:,} lines, {words:,} words, order {order}: {ngrams:,.0f} n-grams")
        print(f"hfasr  {estimate:.1f} s and {write:.1f} s to write, {memory:.2f} GB")
        print(f"lmplz  {theirs:.1f} s")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lmplz", required=True)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--orders", type=int, nargs="+", default=ORDERS)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    lines, others = sentences(flags.lines), sentences(200, "others")
    units = {"words": lines, "characters": [" ".join(line.replace(" ", "|")) for line in lines]}
    results = []
    print(f"{'unit':11}{'order':>6} {'prune':8}{'n-grams':>10}{'log-prob':>10}{'back-off':>10}  largest difference of a sentence's score")
    for unit, text in units.items():
        for order in flags.orders:
            for prune in ("", *PRUNED.get(order, ())):
                some = others if unit == "words" else [" ".join(line.replace(" ", "|")) for line in others]
                found = compare(flags.lmplz, text, order, prune, some) | {"unit": unit}
                results.append(found)
                scores = ", ".join(f"{name} {value:.1e}" for name, value in found["scores"].items())
                shown = f"{unit:11}{order:>6} {prune:8}{found['ngrams']:>10,}{found['log_prob']:>10.1e}{found['backoff']:>10.1e}"
                print(f"{shown}  {scores}", flush=True)
    worst = max(max(found["log_prob"], found["backoff"]) for found in results)
    print(f"largest difference of all: {worst:.1e}")
    if flags.json:
        flags.json.write_text(json.dumps(results, indent=1))
    if flags.large:
        for order in (3, 5):
            large(flags.lmplz, flags.large, order)


if __name__ == "__main__":
    main()
