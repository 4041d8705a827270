"""An inspection as text for the terminal, the most important first."""

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from hfasr.text.changes import QUIET

WIDTH = 100
_SYMBOLS = 12
_ROWS = 1


def inspection_text(inspection) -> str:
    """Return the report that `hfasr inspect` prints, at most 100 columns wide."""
    files = _files(inspection)
    parts = [
        _head(inspection),
        _splits(inspection.splits),
        files if inspection.files["unreadable"] else "",
        _problems(inspection),
        _leaks(inspection.leaks),
        _reasons(inspection),
        _alphabet(inspection),
        _normalized(inspection),
        "" if inspection.files["unreadable"] else files,
        _speakers(inspection),
    ]
    return "\n\n".join(part for part in parts if part)


def table(rows: Sequence[Sequence[Any]], left: Iterable[int] = (0,), indent: str = "  ") -> str:
    """Align columns; numbers to the right, the columns of `left` to the left. Wide characters count as two."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    left = set(left)
    lines = []
    for row in cells:
        padded = [
            cell + " " * (width - _width(cell)) if place in left else " " * (width - _width(cell)) + cell
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def _head(inspection) -> str:
    splits = inspection.splits.values()
    utterances, hours = sum(split["utterances"] for split in splits), sum(split["hours"] for split in splits)
    marked = sum(split["suspicious"] for split in splits)
    speakers = _many(inspection.speakers["count"], "speaker") if inspection.speakers["count"] else "speakers not named"
    suspicious = f"{_many(marked, 'suspicious row')} ({_share(marked, utterances)})"
    return f"{_many(utterances, 'utterance')}, {_hours(hours)}, {speakers}, {suspicious}"


def _splits(splits: dict[str, dict]) -> str:
    rows = [("split", "rows", "hours", "speakers", "seconds (5-95 %, max)", "characters/s (5-95 %)", "suspicious")]
    for split, found in splits.items():
        seconds, rates = found["duration"] or {}, found["characters_per_second"] or {}
        rows.append(
            (
                split,
                f"{found['utterances']:,}",
                f"{found['hours']:,.2f}",
                f"{found['speakers']:,}" if found["speakers"] else "-",
                "{median:.1f} ({5%:.1f}-{95%:.1f}, {max:.1f})".format(**seconds) if seconds else "-",
                "{median:.1f} ({5%:.1f}-{95%:.1f})".format(**rates) if rates else "-",
                f"{found['suspicious']:,}",
            )
        )
    return table(rows, indent="")


def _problems(inspection) -> str:
    if not inspection.problems:
        return ""
    lines = ["Problems that the loader met"]
    for name, found in inspection.problems.items():
        lines.append(f"  {found['count']:,} x {name}")
        lines += [_cut(f"      {each['name']}" + (f": {each['reason']}" if each["reason"] else "")) for each in found["examples"][:2]]
    return "\n".join(lines)


def _reasons(inspection) -> str:
    if not inspection.reasons:
        return "No row is suspicious."
    total = sum(split["utterances"] for split in inspection.splits.values())
    lines = ["What to look at, the weightiest first"]
    for found in inspection.reasons.values():
        advice = found["advice"][0].upper() + found["advice"][1:]
        about = f"  {found['title']}: {_many(found['rows'], 'row')} ({_share(found['rows'], total)}). {advice}."
        lines += textwrap.wrap(about, WIDTH, initial_indent="", subsequent_indent="    ")
        for row in found["examples"][:_ROWS]:
            seconds = "? s" if row["duration"] is None else f"{row['duration']:.1f} s"
            lines.append(_cut(f"      {row['split']} {row['id']}, {seconds}: {shown(row['text'] or '') or '(no text)'}"))
            told = [reason for reason in row["reasons"] if reason.lower() != found["title"].lower()]
            if told:
                lines.append(_cut(f"        {told[0]}"))
    return "\n".join(lines)


def _leaks(leaks) -> str:
    if not leaks.splits:
        return ""
    if not leaks:
        return f"Leaks: {leaks.train} shares no sentence, speaker or recording with {', '.join(leaks.splits)}."
    lines = [f"Leaks: what {leaks.train} shares with the splits that it is tested on; without_leaks drops it from {leaks.train}"]
    return "\n".join(lines + [_cut(f"  {line}") for line in str(leaks).splitlines()])


def _alphabet(inspection) -> str:
    symbols = inspection.alphabet
    letters = [each for each in symbols if each["kind"] in ("letter", "mark")]
    scripts: dict[str, int] = {}
    for each in letters:
        scripts[each["script"] or "common"] = scripts.get(each["script"] or "common", 0) + each["count"]
    total = sum(scripts.values())
    parts = [f"{name} {_share(count, total)}" for name, count in sorted(scripts.items(), key=lambda item: -item[1])]
    lines = [f"Alphabet: {len(symbols):,} symbols, {len(letters):,} of them letters ({', '.join(parts[:6])})"]
    usual = [each["symbol"] for each in letters if not each["mark"]]
    lower = sorted({_small(symbol) for symbol in usual}) if len(usual) <= 200 else [*usual[:40], f"and {len(usual) - 40:,} more"]
    lines += _filled(lower)
    others = [each for each in symbols if each["kind"] not in ("letter", "mark", "space") and not each["mark"]]
    if others:
        lines.append(_cut("  other: " + " ".join(shown(each["symbol"]) for each in others)))
    if inspection.unused:
        lines.append(_cut(f"  never used: {' '.join(inspection.unused)}"))
    marked = [each for each in symbols if each["mark"]]
    if marked:
        rows = [("symbol", "times", "rows", "name", "", "for example in")]
        for each in marked[:_SYMBOLS]:
            name = _cut(each["name"], 36)
            rows.append((shown(each["symbol"]), f"{each['count']:,}", f"{each['rows']:,}", name, each["mark"], _cut(each["example"], 24)))
        lines += [_cut(line) for line in table(rows, left=(0, 3, 4, 5)).splitlines()]
        if len(marked) > _SYMBOLS:
            lines.append(f"  and {len(marked) - _SYMBOLS:,} more")
    return "\n".join(lines)


def _normalized(inspection) -> str:
    report = inspection.normalized
    if report is None or not report.texts:
        return ""
    drawn = " drawn from all" if report.texts < sum(split["utterances"] for split in inspection.splits.values()) else ""
    dropped = f", {report.dropped:,} would be dropped" if report.dropped else ""
    lines = [f"Normalizer({report.language!r}) would change {report.changed:,} of {_many(report.texts, 'text')}{drawn}{dropped}"]
    for rule, count in sorted(report.rules.items(), key=lambda item: (item[0] in QUIET, -item[1].texts)):
        kinds = ", ".join(f"{shown(kind)} {number:,}" for kind, number in count.kinds.most_common(6))
        lines.append(_cut(f"  {rule}: {count.changes:,} in {_many(count.texts, 'text')} ({kinds})"))
        if rule not in QUIET:
            for before, after in count.examples[:1]:
                lines += [_cut(f"      {shown(before)}"), _cut(f"    = {shown(after) or '(dropped)'}")]
    return "\n".join(lines)


def _files(inspection) -> str:
    files = inspection.files
    total = sum(split["utterances"] for split in inspection.splits.values())
    lines = ["Files, by the headers of " + _many(files["sampled"], "clip") + (" drawn from all" if files["sampled"] < total else "")]
    read = files["sampled"] - files["unreadable"]
    for title, name, unit in (("format", "formats", ""), ("rate", "sampling_rates", " Hz"), ("channels", "channels", "")):
        if files[name]:
            lines.append(f"  {title}: " + ", ".join(f"{value}{unit} {_share(count, read)}" for value, count in files[name].items()))
    if files["unreadable"]:
        how_many = "None of the headers can" if not read else f"{files['unreadable']:,} headers cannot"
        lines.append(f"  {how_many} be read, for example")
        lines += [_cut(f"      {each['id']}: {each['reason']}") for each in files["examples"][:3]]
    if files["other_durations"]:
        lines.append(
            f"  {files['other_durations']:,} last more than 0.1 s longer or shorter than their row says; check_audio measures them"
        )
    return "\n".join(lines)


def _speakers(inspection) -> str:
    speakers = inspection.speakers
    lines = []
    if speakers["count"] > 1:
        most = speakers["listed"][:10]
        hours = sum(split["hours"] for split in inspection.splits.values())
        of_most = _share(sum(each["hours"] for each in most), hours) if hours else "?"
        utterances = speakers["utterances"]
        lines.append(
            f"Speakers: {utterances['min']:,.0f} to {utterances['max']:,.0f} utterances each, median {utterances['median']:,.0f}; "
            f"the {len(most)} who speak most have {of_most} of the time"
            + (f"; {speakers['unnamed']:,} rows name none" if speakers["unnamed"] else "")
        )
    if len(inspection.sources) > 1:
        lines.append("Sources")
        rows = [(name, f"{each['utterances']:,}", f"{each['hours']:,.2f} h") for name, each in list(inspection.sources.items())[:12]]
        lines.append(table(rows))
    return "\n".join(lines)


def shown(text: str) -> str:
    """Return a text in one line, what cannot be seen as its code point and combining marks on a circle.

    >>> shown("a\\u200bb")
    'a⟨U+200B⟩b'
    """
    visible = []
    for place, character in enumerate(text):
        category = unicodedata.category(character)
        if category in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Cs") or (category == "Zs" and character != " "):
            visible.append(" " if character in "\t\n\r" else f"⟨U+{ord(character):04X}⟩")
        else:
            visible.append(f"◌{character}" if category[0] == "M" and place == 0 else character)
    return "".join(visible)


def _filled(words: list[str], indent: str = "  ") -> list[str]:
    """Return lines of as many words as fit; `textwrap` does not know of wide characters."""
    lines = [indent]
    for word in words:
        if _width(lines[-1]) + _width(word) > WIDTH:
            lines.append(indent)
        lines[-1] += word + " "
    return [line.rstrip() for line in lines if line.strip()]


def _small(letter: str) -> str:
    # İ has no small letter of one character outside of the Turkic languages
    return letter.lower() if len(letter.lower()) == 1 else letter


def _cut(line: str, width: int = WIDTH) -> str:
    if _width(line) <= width:
        return line
    kept, used = [], 1
    for character in line:
        used += _width(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else unicodedata.category(character)[0] != "M" for character in text)


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}" + ("" if count == 1 else "s")


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _share(count: float, total: float) -> str:
    if not total:
        return "0 %"
    percent = 100 * count / total
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %" if percent >= 0.1 else "<0.1 %"
