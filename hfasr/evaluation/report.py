"""report.html: what a recogniser got wrong, for a reader who knows the language better than the machinery.

One file without external parts: rates with intervals, confusions with examples, groups, and single utterances to see and hear.
Letters in shapes: N utterances, K symbols.
"""

import base64
import hashlib
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from unicodedata import normalize

from hfasr.audio import load_audio, write_audio
from hfasr.evaluation.edits import WORD_BAR, align_tokens, split_tokens
from hfasr.evaluation.groups import known_seconds, short_name
from hfasr.evaluation.metrics import RATE_NAMES, evaluate_predictions, main_split
from hfasr.files import write_text
from hfasr.text.phonetic_features import FEATURES, feature_vector, is_known, to_ipa

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_HEAT_MAP_SYMBOLS = 45
_CONFUSIONS = 25
_EXAMPLES = 4
_CONTEXT_TOKENS = 4
_GROUP_ROWS = 20
_LONGEST_CLIP_SECONDS = 60
_NEEDED = ("split", "id", "text", "reference", "hypothesis", "duration")
_RATE_TITLES = {
    "per": "Phoneme error rate",
    "pfer": "Phonetic feature error rate",
    "wer": "Word error rate",
    "cer": "Character error rate",
}
_NOTHING = "∅"


def write_report(
    path: str | os.PathLike,
    utterances: Iterable[dict],
    *,
    unit: str,
    title: str,
    details: Mapping[str, str] | None = None,
    worst: int = 30,
    typical: int = 10,
    audio_clips: int = 30,
) -> Path:
    """Write an error report as one self-contained HTML file.

    Args:
        path: the file; it is written under a temporary name and renamed.
        utterances: dicts with split, id, text, reference, hypothesis and duration in seconds; optional speaker, gender, accent,
            source and audio (anything `load_audio` takes). Errors are shown for the split "test", or the first if there is none.
        unit: "phoneme", "character" or "word", what references and hypotheses consist of.
        title: heading of the page.
        details: facts about the run, shown under the heading as they are.
        worst, typical: number of utterances shown with alignment, those with the most errors and evenly spaced ones.
        audio_clips: at most this many of them get a player, worst first; 0 keeps audio out of the file. A clip that cannot be
            read, or is longer than a minute, is left out, and the page says why.

    Returns:
        The path.

    Raises:
        ValueError: no utterances, an utterance without one of the needed keys, or an unknown unit.
    """
    rows = [dict(utterance) for utterance in utterances]
    if not rows:
        raise ValueError("no utterances to report on, expected at least one")
    for row in rows:
        missing = [key for key in _NEEDED if key not in row]
        if missing:
            raise ValueError(f"utterance {row.get('id', '?')!r} has no {', '.join(missing)}, found {', '.join(row)}")
    results = evaluate_predictions(rows, unit)
    split = main_split(results)
    analysed = [_analyse(row, unit) for row in rows if row["split"] == split]
    by_errors = sorted(analysed, key=lambda row: (-row["rate"], -row["errors"], str(row["id"])))
    shown = [row for row in by_errors if row["errors"]][:worst]
    rest = by_errors[len(shown) :]
    evenly = [rest[place * len(rest) // typical] for place in range(min(typical, len(rest)))] if typical else []
    for row in (shown + evenly)[:audio_clips]:
        row |= _embed_audio(row)

    page = _render(
        title=title,
        details=details or {},
        unit=unit,
        main_split=split,
        rate_titles={name: _RATE_TITLES[name] for name in _RATE_TITLES if name in results[split]},
        results=results,
        heat_map=None if unit == "word" else _heat_map(_count_pairs(analysed), unit),
        confusions=_top_confusions(analysed, unit),
        groups=_groups(results[split]["groups"], RATE_NAMES[unit]),
        worst=shown,
        typical=evenly,
        exact=sum(row["errors"] == 0 for row in analysed),
        analysed=len(analysed),
    )
    path = Path(path)
    write_text(path, page)
    return path


def public_copy(page: str) -> str:
    """A page of `write_report` without recordings and without the table of speakers, to be shown to strangers.

    The parts are found by marks that cannot come from a transcript, because all text in the page is escaped.
    """
    page = re.sub(r'<button type="button" data-clip=.*?</script>', "", page, flags=re.DOTALL)
    return re.sub(r"<!-- speaker -->.*?<!-- end -->", "", page, flags=re.DOTALL)


def _render(**values) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f}"
    environment.filters["seconds"] = known_seconds
    environment.filters["by_word"] = _by_word
    environment.filters["ipa"] = lambda symbol: "" if symbol is None or to_ipa(symbol) == symbol else normalize("NFC", to_ipa(symbol))
    environment.filters["visible"] = lambda token: _NOTHING if token is None else "␣" if token.isspace() else token
    script = _TEMPLATE.with_name("report.js").read_text(encoding="utf-8")
    # Only this script may run, so that no text that slipped through unescaped could.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(script=script, script_digest=digest, **values)


def _analyse(row: dict, unit: str) -> dict:
    """`row` with its alignment, number of errors and error rate."""
    reference, hypothesis = split_tokens(row["reference"], unit), split_tokens(row["hypothesis"], unit)
    pairs = align_tokens(reference, hypothesis)
    starts = _word_starts(row["reference"], unit)
    cells, place = [], 0
    for left, right in pairs:
        kind = _kind(left, right)
        note = describe_difference(left, right) if kind == "sub" and unit == "phoneme" else ""
        cells.append({"left": left, "right": right, "kind": kind, "note": note, "starts_word": left is not None and place in starts})
        place += left is not None
    errors = sum(left != right for left, right in pairs)
    return row | {"pairs": pairs, "cells": cells, "errors": errors, "rate": errors / len(reference) if reference else float(errors)}


def _word_starts(reference: str, unit: str) -> set[int]:
    """Places among the tokens of a reference at which a word begins."""
    if unit == "word":
        return set(range(len(reference.split())))
    if unit == "character":
        return {place + 1 for place, character in enumerate(reference.strip()) if character.isspace()}
    lengths = [len(word.split()) for word in reference.split(WORD_BAR)]
    return {sum(lengths[:count]) for count in range(len(lengths))}


def _by_word(cells: list[dict]) -> list[list[dict]]:
    """Cells of an alignment grouped by the word of the reference; an insertion between two words goes to the first."""
    words = [[]]
    for cell in cells:
        if cell["starts_word"] and words[-1]:
            words.append([])
        words[-1].append(cell)
    return words


def _kind(left: str | None, right: str | None) -> str:
    if left == right:
        return "hit"
    return "ins" if left is None else "del" if right is None else "sub"


def describe_difference(left: str, right: str) -> str:
    """In which articulatory features two phonemes differ, in words.

    >>> describe_difference("t[", "d[")
    'voiced'
    """
    if not (is_known(left) and is_known(right)):
        return "no features known"
    names = [name for name, one, other in zip(FEATURES, feature_vector(left), feature_vector(right), strict=True) if one != other]
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} of {len(FEATURES)} features"


def _count_pairs(analysed: list[dict]) -> Counter:
    return Counter(pair for row in analysed for pair in row["pairs"])


def _top_confusions(analysed: list[dict], unit: str) -> list[dict]:
    """The most frequent errors, each with how often the reference symbol occurs and some places to look at."""
    counts = _count_pairs(analysed)
    occurrences = Counter()
    for (left, _), count in counts.items():
        occurrences[left] += count
    examples = defaultdict(list)
    for row in analysed:
        for place, pair in enumerate(row["pairs"]):
            if pair[0] != pair[1] and len(examples[pair]) < _EXAMPLES:
                cells = row["cells"][max(0, place - _CONTEXT_TOKENS) : place + _CONTEXT_TOKENS + 1]
                examples[pair].append({"id": row["id"], "text": row["text"], "cells": cells})
    errors = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]]
    return [
        {
            "left": left,
            "right": right,
            "count": count,
            # An insertion has no reference symbol that it could be a share of.
            "share": count / occurrences[left] if left is not None else None,
            "of_errors": count / sum(count for _, count in errors),
            "note": describe_difference(left, right) if unit == "phoneme" and left and right else "",
            "kind": _kind(left, right),
            "examples": examples[left, right],
        }
        for (left, right), count in errors[:_CONFUSIONS]
    ]


def _heat_map(counts: Counter, unit: str) -> dict:
    """Rows of reference symbols and columns of hypothesis symbols, shares of each row; None stands for nothing.

    Beyond 45 symbols those with the most errors are kept, so that the map can be read.
    """
    errors, occurrences = Counter(), Counter()
    for (left, right), count in counts.items():
        occurrences[left] += count
        for symbol in (left, right):
            errors[symbol] += count * (left != right)
    symbols = sorted({symbol for pair in counts for symbol in pair} - {None}, key=lambda symbol: (-errors[symbol], symbol))
    kept = sorted(symbols[:_HEAT_MAP_SYMBOLS], key=_phonetic_order if unit == "phoneme" else str)
    rows = []
    for left in [*kept, None]:
        cells = []
        for right in [*kept, None]:
            count = counts[left, right]
            # Insertions have no row total of their own: their share is of all insertions.
            share = count / occurrences[left] if count else 0.0
            cells.append({"right": right, "count": count, "share": share, "shade": round(share**0.5, 3), "diagonal": left == right})
        rows.append({"left": left, "occurrences": occurrences[left], "cells": cells})
    rows[-1]["cells"].pop()
    return {"columns": [*kept, None], "rows": rows, "left_out": len(symbols) - len(kept)}


def _phonetic_order(symbol: str) -> tuple:
    """Vowels, sonorants, fricatives, stops; within each from the lips back, voiceless before voiced, short before long."""
    vector = dict(zip(FEATURES, feature_vector(symbol).tolist(), strict=True))
    vowel = vector["syllabic"] == 1
    manner = (-vector["syllabic"], -vector["sonorant"], -vector["continuant"], vector["nasal"], vector["delayed release"])
    place = (-vector["high"], vector["low"], vector["back"], vector["round"]) if vowel else (-vector["labial"], -vector["coronal"])
    depth = () if vowel else (-vector["anterior"], -vector["high"], vector["back"])
    return (not is_known(symbol), manner, place, depth, vector["voiced"], vector["long"], symbol)


def _groups(results: dict[str, dict[str, dict]], rate: str) -> list[dict]:
    """Tables of one rate by group, of columns other than the duration the worst groups first."""
    tables = []
    for column, groups in results.items():
        rows = [
            {"name": short_name(name), "utterances": found["utterances"], "seconds": found["seconds"], "rate": found[rate]}
            | dict(zip(("low", "high"), found[f"{rate}_ci95"], strict=True))
            for name, found in groups.items()
        ]
        if column != "duration":
            rows.sort(key=lambda group: -group["rate"])
        tables.append({"name": column, "rows": rows[:_GROUP_ROWS], "left_out": max(0, len(rows) - _GROUP_ROWS)})
    # Bars of all tables share one scale, so that they can be compared.
    widest = max((group["high"] for table in tables for group in table["rows"]), default=0.0) or 1.0
    return [table | {"widest": widest} for table in tables]


def _embed_audio(row: dict) -> dict:
    """`audio_base64`, MP3 at 16 kHz, or `audio_problem`, a sentence; nothing for a row without audio."""
    if row.get("audio") is None:
        return {}
    if known_seconds(row) > _LONGEST_CLIP_SECONDS:
        return {"audio_problem": f"No player: longer than {_LONGEST_CLIP_SECONDS} s."}
    encoded = io.BytesIO()
    try:
        write_audio(encoded, load_audio(row["audio"]), format="MP3")
    except (ValueError, TypeError, OSError) as error:
        # One bad clip must not cost the report; the page shows the reason in its place.
        # The path goes: a page is sent to others. The log of the run and quarantine.jsonl have it.
        reason = str(error).replace(str(row["audio"]), str(row["id"]))
        return {"audio_problem": f"No player, the audio could not be read: {reason}"}
    return {"audio_base64": base64.b64encode(encoded.getvalue()).decode()}
