"""Two systems on the same utterances: how far their error rates differ, and how sure that is.

Letters in shapes: N utterances, B resampled sets.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hfasr.evaluation.edits import split_tokens
from hfasr.evaluation.groups import group_places, known_seconds, short_name
from hfasr.evaluation.metrics import PhoneticScore, Score, resample, resampled_rates, split_rates

_RATES = ("per", "wer", "cer", "pfer")
_MOST_SHOWN = 20
# sets drawn from fewer utterances are too much alike to tell how sure a difference is
_FEWEST = 5


def compare(first: Iterable[dict], second: Iterable[dict], unit: str, *, resamples: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Compare two systems by a paired bootstrap over utterances (Bisani and Ney 2004, "Bootstrap estimates for confidence intervals
    in ASR performance evaluation").

    Each of B sets of utterances, drawn with replacement, is scored for both systems. What is hard in an utterance is hard for both, so
    a difference can be sure where the intervals of the two rates overlap.

    Args:
        first: Utterances as `evaluate_predictions` takes them, with `id`.
        second: The same utterances, in any order, with the hypotheses of the other system. Splits that only one has are left out.
        unit: What is counted, as `evaluate_predictions` takes it.
        resamples: How many sets are drawn, B.

    Returns:
        By split: `utterances`, `seconds`, `groups` with the same of each group of `group_places`, and for each rate a dict of
        "first" and "second", the rates; "difference", second less first; "difference_ci95", its 95 % interval; and "improvement", the
        share of the drawn sets on which the second makes fewer errors, where a tie is half: 1 is sure to be better, 0 to be worse.
        The last two are None for less than 5 utterances.

    Raises:
        KeyError: An utterance without split, id, reference or hypothesis.
        TypeError, ValueError: As `evaluate_predictions`; no split is in both; or one has other utterances or references than the other.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1")
    ours, theirs = _by_split(first), _by_split(second)
    common = [split for split in ours if split in theirs]
    if not common:
        raise ValueError(f"there is no split to compare on: the first has {', '.join(ours)}, the second {', '.join(theirs)}")
    results = {}
    for split in common:
        _check_same(split, ours[split], theirs[split], unit)
        rows = [*ours[split].values()]
        rates = split_rates(rows, unit)
        others = split_rates([theirs[split][key] for key in ours[split]], unit)
        groups = {
            column: {name: _compared(rates, others, places, rows, resamples, seed) for name, places in members.items()}
            for column, members in group_places(rows).items()
        }
        results[split] = _compared(rates, others, np.arange(len(rows)), rows, resamples, seed) | {"groups": groups}
    return results


def compare_runs(first: str | os.PathLike, second: str | os.PathLike, *, resamples: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Compare what two folders hold, of training or of `hfasr evaluate`; see `compare`.

    Args:
        first: Folder with predictions.jsonl, and results.json or recipe.json, which tell the unit.
        second: The other one.
        resamples: How many sets are drawn.

    Raises:
        FileNotFoundError: A folder lacks one of these files.
        ValueError: A file is damaged, the units differ, or as `compare`.
    """
    units = [_unit(Path(folder)) for folder in (first, second)]
    if units[0] != units[1]:
        raise ValueError(f"{first} recognises {units[0]}s and {second} {units[1]}s: their rates cannot be compared")
    ours, theirs = (_predictions(Path(folder)) for folder in (first, second))
    try:
        return compare(ours, theirs, units[0], resamples=resamples, seed=seed)
    except ValueError as error:
        raise ValueError(f"{first} and {second} cannot be compared: {error}") from None


def comparison_lines(results: Mapping[str, dict]) -> list[str]:
    """Lay a comparison out as lines of a table, in per cent: all rates of each split, the first one of its groups.

    Columns of more than 20 groups, as speakers may be, are left out; `compare` returns them.
    """
    table = [("split", "group", "rate", "first %", "second %", "difference", "95 % interval", "second better", "utterances")]
    for split, values in results.items():
        rates = [name for name in _RATES if name in values]
        table += [_line(split, "", rate, values) for rate in rates]
        for column, members in values["groups"].items():
            if len(members) <= _MOST_SHOWN:
                table += [_line(split, f"{column} {short_name(name)}", rates[0], found) for name, found in members.items()]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    return ["  ".join(map(_cell, row, widths, range(len(row)))).rstrip() for row in table]


def _cell(text: str, width: int, place: int) -> str:
    return text.ljust(width) if place < 3 else text.rjust(width)  # words to the left, numbers to the right


def _line(split: str, group: str, rate: str, values: dict) -> tuple[str, ...]:
    found = values[rate]
    numbers = (f"{100 * found['first']:.2f}", f"{100 * found['second']:.2f}", f"{100 * found['difference']:+.2f}")
    sure = ("-", "-")
    if found["difference_ci95"] is not None:
        low, high = found["difference_ci95"]
        sure = (f"{100 * low:+.2f} to {100 * high:+.2f}", f"{100 * found['improvement']:.1f} %")
    return (split, group, rate.upper(), *numbers, *sure, str(values["utterances"]))


def _compared(
    rates: Mapping[str, Score | PhoneticScore], others: Mapping, places: np.ndarray, rows: list[dict], resamples: int, seed: int
) -> dict:
    results = {"utterances": len(places), "seconds": round(sum(known_seconds(rows[place]) for place in places.tolist()), 3)}
    for name, rate in rates.items():
        kinds = (rate.utterance_errors, others[name].utterance_errors, rate.utterance_lengths)
        counts = np.stack([kind[places].astype(np.float64) for kind in kinds])
        first, second = (resampled_rates(counts[system].sum(keepdims=True), counts[2].sum(keepdims=True)).item() for system in (0, 1))
        sums = resample(counts, resamples, seed)
        # costs of PFER are sums of 24ths: rounding must not break a tie
        differences = np.round(resampled_rates(sums[:, 1], sums[:, 2]) - resampled_rates(sums[:, 0], sums[:, 2]), 12)
        enough = len(places) >= _FEWEST
        results[name] = {
            "first": first,
            "second": second,
            "difference": second - first,
            "difference_ci95": np.quantile(differences, [0.025, 0.975]).tolist() if enough else None,
            "improvement": float(np.mean(differences < 0) + np.mean(differences == 0) / 2) if enough else None,
        }
    return results


def _by_split(utterances: Iterable[dict]) -> dict[str, dict[tuple, dict]]:
    """Utterances by split, and there by id and how often the id stood before, as a mixed corpus may repeat a row."""
    splits: dict[str, dict[tuple, dict]] = {}
    seen: dict[tuple, int] = {}
    for utterance in utterances:
        key = (utterance["split"], str(utterance["id"]))
        seen[key] = seen.get(key, -1) + 1
        splits.setdefault(key[0], {})[key[1], seen[key]] = utterance
    return splits


def _check_same(split: str, ours: dict[tuple, dict], theirs: dict[tuple, dict], unit: str) -> None:
    for lacking, other, which in ((theirs, ours, "second"), (ours, theirs, "first")):
        if missing := [key for key in other if key not in lacking]:
            raise ValueError(
                f"the {which} has no utterance {missing[0][0]!r} of {split}, and {len(missing) - 1} more; evaluate both on the same rows"
            )
    for key, utterance in ours.items():
        references = [row["reference"] for row in (utterance, theirs[key])]
        if split_tokens(references[0], unit) != split_tokens(references[1], unit):
            raise ValueError(
                f"utterance {key[0]!r} of {split} has the reference {references[0]!r} in the first and {references[1]!r} in the second; "
                "make the targets of both in the same way"
            )


def _unit(folder: Path) -> str:
    # results.json of older runs does not tell it
    for name in ("results.json", "recipe.json"):
        if (folder / name).is_file():
            try:
                unit = json.loads((folder / name).read_text(encoding="utf-8")).get("unit")
            except (ValueError, AttributeError):
                raise ValueError(f"{folder / name} is not a JSON object; was it written by hfasr?") from None
            if isinstance(unit, str):
                return unit
    raise FileNotFoundError(f"{folder} has no results.json or recipe.json with a unit; give the folder of a run or of hfasr evaluate")


def _predictions(folder: Path) -> list[dict]:
    path = folder / "predictions.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no predictions.jsonl; give the folder of a run or of hfasr evaluate")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            texts = ("split", "reference", "hypothesis")
            if not isinstance(row, dict) or "id" not in row or not all(isinstance(row.get(name), str) for name in texts):
                raise ValueError(f"{path}: line {number} is not an utterance with split, id, reference and hypothesis")
            found.append(row)
    return found
