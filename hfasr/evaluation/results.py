"""What an evaluation leaves behind, after training and by `hfasr evaluate`: results.json, predictions.jsonl, report.html."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from datasets import Dataset

from hfasr.corpora.rows import column, plain
from hfasr.evaluation.metrics import evaluate_predictions
from hfasr.evaluation.report import write_report
from hfasr.files import write_json, write_jsonl

_COLUMNS = ("id", "text", "duration", "speaker", "gender", "accent", "source")


def utterances_of(split: str, rows: Dataset, hypotheses: Iterable[str]) -> list[dict]:
    """Join rows of a split, with `target`, and what was recognised in each, as `predictions.jsonl` holds them."""
    kept = [name for name in _COLUMNS if name in rows.column_names]
    paths = column(rows, "audio", "path").to_pylist()
    # beside its path a row of shards holds the audio itself, which nothing here needs
    texts = plain(rows).select_columns([*kept, "target"])
    return [
        {"split": split, **{name: row[name] for name in kept}, "reference": row["target"], "hypothesis": hypothesis, "audio": path}
        for row, hypothesis, path in zip(texts, hypotheses, paths, strict=True)
    ]


def write_results(
    folder: str | os.PathLike, utterances: Iterable[dict], unit: str, *, title: str, details: Mapping[str, str], more: Mapping[str, object]
) -> dict:
    """Score utterances and write `results.json`, `predictions.jsonl` and `report.html`.

    Args:
        folder: Where to; made if it does not exist.
        utterances: As `write_report` takes them.
        unit: What is counted, as `evaluate_predictions` takes it.
        title: Of the report, and `details` under it.
        details: Facts about the model, shown as they are.
        more: What `results.json` holds besides the splits.

    Returns:
        What `results.json` holds: for each split what `evaluate_predictions` returns, the unit, and `more`.

    Raises:
        ValueError: There are no utterances.
        OSError: The folder cannot be written.
    """
    folder, utterances = Path(folder), list(utterances)
    folder.mkdir(parents=True, exist_ok=True)
    results = {**evaluate_predictions(utterances, unit), "unit": unit, **more}
    write_json(folder / "results.json", results)
    write_jsonl(folder / "predictions.jsonl", utterances)
    write_report(folder / "report.html", utterances, unit=unit, title=title, details=details)
    return results


def made_by(targets: Mapping[str, object]) -> str:
    """Say how targets were made, such as "phonemes of espeak-ng 1.52.0, voice ky", by the record of a tokenizer with its unit."""
    makers = [f"espeak-ng {targets['espeak_version']}, voice {targets['voice']}"] if targets.get("voice") else []
    makers += ["a lexicon"] if targets.get("lexicon_sha256") else []
    makers += [f"text normalized by the rules of {targets['normalizer']}"] if targets.get("normalizer") else []
    return f"{targets['unit']}s" + (f" of {' and '.join(makers)}" if makers else "")


def rate_lines(results: Mapping[str, object]) -> list[str]:
    """Say the rates of each split in a line, such as "test: PER 6.57 % (5.42 to 7.79), PFER 3.19 % (2.54 to 3.86) on 160 utterances"."""
    lines = []
    for split, values in results.items():
        if not isinstance(values, Mapping) or "utterances" not in values:
            continue
        rates = []
        for name in ("per", "wer", "cer", "pfer"):
            if name in values:
                low, high = values[f"{name}_ci95"]
                rates.append(f"{name.upper()} {100 * values[name]:.2f} % ({100 * low:.2f} to {100 * high:.2f})")
        lines.append(f"{split}: {', '.join(rates)} on {values['utterances']} utterances")
    return lines
