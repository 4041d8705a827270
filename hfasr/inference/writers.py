"""Transcript -> files: text, JSON lines, subtitles (SRT, WebVTT), Praat's TextGrid and NIST's CTM."""

import html
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from hfasr.files import write_text
from hfasr.inference.transcript import Reading, Transcript, Unit, one_line

SUFFIXES = {"txt": ".txt", "jsonl": ".jsonl", "srt": ".srt", "vtt": ".vtt", "textgrid": ".TextGrid", "ctm": ".ctm"}
FORMATS = tuple(SUFFIXES)

# subtitles as broadcasters ask for them: two lines of 42 columns, on the screen for 1 to 7 seconds
_COLUMNS, _LINES, _MIN_MS, _MAX_MS = 42, 2, 1_000, 7_000
# CTC's symbols hold few frames, so that words are apart by more than they are in speech
_PAUSE_MS = 700

_Timed = tuple[int, int, str]
"""Start and end in ticks, and text."""


def check_formats(text: str) -> tuple[str, ...]:
    """Read names of formats, split by commas: "txt,srt" -> ("txt", "srt").

    Raises:
        ValueError: A name is none of `FORMATS`, or there is none.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in FORMATS:
            raise ValueError(f"there is no format {name!r}; give some of {','.join(FORMATS)}, split by commas")
    return tuple(dict.fromkeys(names))


def as_record(transcript: Transcript) -> dict:
    """Return a transcript as a JSON object; seconds, confidences and scores are rounded to 1e-6."""

    def unit(found: Unit) -> dict:
        times = {"text": found.text, "start": round(found.start, 6), "end": round(found.end, 6)}
        return times if found.confidence is None else times | {"confidence": round(found.confidence, 6)}

    return {
        "path": transcript.path,
        "text": transcript.text,
        "duration": round(transcript.duration, 6),
        "error": transcript.error,
        "words": [unit(word) for word in transcript.words],
        "symbols": [unit(symbol) for symbol in transcript.symbols],
        "readings": [{"text": reading.text, "score": round(reading.score, 6)} for reading in transcript.readings],
    }


def from_record(record: dict) -> Transcript:
    """Return the transcript of a JSON object as `as_record` makes them."""
    return Transcript(
        record["text"],
        record["path"],
        record["duration"],
        record.get("error"),
        tuple(Unit(**word) for word in record.get("words", ())),
        tuple(Unit(**symbol) for symbol in record.get("symbols", ())),
        tuple(Reading(**reading) for reading in record.get("readings", ())),
    )


def render(transcript: Transcript, format: str, *, name: str | None = None, symbols: str = "symbols") -> str:
    """Return a transcript as the text of a file.

    - txt: the text and a line break.
    - jsonl: one line, `as_record`.
    - srt, vtt: cues of at most two lines of 42 columns and 7 seconds, cut at pauses and ends of words. Where words have no
      times, the text is spread evenly over the recording.
    - textgrid: Praat's long format with two tiers of intervals, "words" and the symbols.
    - ctm: lines of recording, channel 1, start, duration, word and, where it is known, confidence. Its fields are split by
      spaces, so spaces within the name or a word, such as between phonemes, become `_`.

    Args:
        transcript: One recording.
        format: One of `FORMATS`.
        name: What a CTM calls the recording; the name of the file without its suffix when None.
        symbols: Name of the TextGrid's tier of symbols, such as "phonemes".

    Raises:
        ValueError: There is no such format.
    """
    check_formats(format)
    if format == "txt":
        return transcript.text + "\n"
    if format == "jsonl":
        return json.dumps(as_record(transcript), ensure_ascii=False) + "\n"
    if format == "srt":
        cues = enumerate(_cues(transcript), 1)
        return "".join(f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n" for number, (start, end, text) in cues)
    if format == "vtt":
        cues = (
            f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n{html.escape(text, quote=False)}\n" for start, end, text in _cues(transcript)
        )
        return "WEBVTT\n" + "".join(cues)
    if format == "textgrid":
        return _textgrid(transcript, symbols)
    return _ctm(transcript, name or Path(transcript.path or "recording").stem)


def write_transcript(stem: Path, transcript: Transcript, formats: Sequence[str], *, symbols: str = "symbols") -> list[Path]:
    """Write a transcript in some formats, each file whole or not at all.

    Args:
        stem: Path of the files without their suffix, `.txt`, `.jsonl`, `.srt`, `.vtt`, `.TextGrid` or `.ctm`; its folder is made.
        transcript: One recording.
        formats: Some of `FORMATS`.
        symbols: Name of the TextGrid's tier of symbols, such as "phonemes".

    Returns:
        The files, in the order of the formats.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for format in formats:
        text = render(transcript, format, name=stem.name, symbols=symbols)
        # not with_suffix: the stem may hold points of its own
        files.append(stem.with_name(stem.name + SUFFIXES[format]))
        write_text(files[-1], text)
    return files


def _in_ticks(units: Sequence[Unit], per_second: int) -> list[_Timed]:
    """Round times to whole ticks, so that each unit has a millisecond at least and begins where the one before ends, or later."""
    timed: list[_Timed] = []
    least = per_second // 1_000
    for unit in units:
        start = max(round(unit.start * per_second), timed[-1][1] if timed else 0)
        timed.append((start, max(round(unit.end * per_second), start + least), _plain(unit.text)))
    return timed


def _plain(text: str) -> str:
    """Return text in one line, with single spaces."""
    return " ".join(one_line(text).split())


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1_000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{ms:03}"


def _width(text: str) -> int:
    """Return how many columns a text takes: Chinese characters two, combining marks none."""
    return sum(0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _cues(transcript: Transcript) -> list[_Timed]:
    """Return subtitles with milliseconds and lines, in order and not overlapping."""
    cue: list[_Timed] = []
    cues: list[list[_Timed]] = []
    for start, end, text in _pieces(transcript):
        if cue and start - cue[-1][1] >= _PAUSE_MS:
            cues.append(cue)
            cue = []
        while cue and (end - cue[0][0] > _MAX_MS or len(_lines([*(piece[2] for piece in cue), text])) > _LINES):
            place = _best_cut(cue, start)
            cues.append(cue[:place])
            cue = cue[place:]
        cue.append((start, end, text))
    if cue:
        cues.append(cue)
    timed = []
    ends = [following[0][0] for following in cues[1:]] + [max(round(transcript.duration * 1_000), cues[-1][-1][1])] if cues else []
    for pieces, latest in zip(cues, ends, strict=True):
        start = pieces[0][0]
        end = min(max(pieces[-1][1], start + _MIN_MS), start + _MAX_MS, latest)
        timed.append((start, end, "\n".join(_lines([piece[2] for piece in pieces]))))
    return timed


def _best_cut(cue: list[_Timed], following: int) -> int:
    """Return how many pieces of a full cue to show: up to the longest pause of its second half, of equal ones the last."""
    starts = [piece[0] for piece in cue[1:]] + [following]
    places = range((len(cue) + 1) // 2, len(cue) + 1)
    return max(places, key=lambda place: (starts[place - 1] - cue[place - 1][1], place))


def _pieces(transcript: Transcript) -> list[_Timed]:
    """Return the words with milliseconds, each with what follows it in the text; a space at the end where one does."""
    text, words = _plain(transcript.text), [word for word in transcript.words if _plain(word.text)]
    if not words:
        return [piece for piece in _spread(text, round(transcript.duration * 1_000)) if piece[2].strip()]
    timed, places, place = _in_ticks(words, 1_000), [], 0
    for _, _, word in timed:
        place = text.find(word, place)
        if place < 0:  # the text was changed after its words were found
            return [(start, end, word + " ") for start, end, word in timed]
        places.append(place)
        place += len(word)
    places[0] = 0
    return [(start, end, text[first:last]) for (start, end, _), first, last in zip(timed, places, [*places[1:], len(text)], strict=True)]


def _spread(text: str, duration: int) -> list[_Timed]:
    """Return words with milliseconds in proportion to their letters; parts of no more than a line where there are no spaces."""
    words = [word[i : i + _COLUMNS // 2] for word in (word + " " for word in text.split()) for i in range(0, len(word), _COLUMNS // 2)]
    letters, timed = 0, []
    for word in words:
        start, letters = letters, letters + len(word)
        timed.append((duration * start // (len(text) + 1), duration * letters // (len(text) + 1), word))
    return timed


def _lines(pieces: Sequence[str]) -> list[str]:
    """Set pieces in lines of at most 42 columns; a piece that is longer is broken."""
    lines, line = [], ""
    for piece in pieces:
        if line and _width(line) + _width(piece.rstrip()) > _COLUMNS:
            lines.append(line.rstrip())
            line = ""
        for letter in piece.lstrip() if not line else piece:
            if _width(line + letter) > _COLUMNS and letter != " ":
                lines.append(line.rstrip())
                line = ""
            line += letter
    return [*lines, line.rstrip()]


def _textgrid(transcript: Transcript, symbols: str) -> str:
    per_second = 1_000_000
    tiers = {"words": _in_ticks(transcript.words, per_second), symbols: _in_ticks(transcript.symbols, per_second)}
    duration = max(1, round(transcript.duration * per_second), *(timed[-1][0] + 1_000 for timed in tiers.values() if timed))
    xmax = f"{duration / per_second:.10g}"
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", f"xmax = {xmax} "]
    lines += ["tiers? <exists> ", f"size = {len(tiers)} ", "item []: "]
    for number, (tier, timed) in enumerate(tiers.items(), 1):
        intervals = _without_gaps(timed, duration)
        lines += [f"    item [{number}]:", '        class = "IntervalTier" ', f"        name = {_quoted(tier)} "]
        lines += ["        xmin = 0 ", f"        xmax = {xmax} ", f"        intervals: size = {len(intervals)} "]
        for place, (start, end, text) in enumerate(intervals, 1):
            lines += [f"        intervals [{place}]:", f"            xmin = {start / per_second:.10g} "]
            lines += [f"            xmax = {end / per_second:.10g} ", f"            text = {_quoted(text)} "]
    return "\n".join(lines) + "\n"


def _without_gaps(timed: Sequence[_Timed], duration: int) -> list[_Timed]:
    """Fill what lies between units, before and after them with empty intervals."""
    filled, place = [], 0
    for start, end, text in timed:
        if start > place:
            filled.append((place, start, ""))
        # the frames of a padded end reach past the audio
        place = min(end, duration)
        filled.append((start, place, text))
    return [*filled, (place, duration, "")] if place < duration else filled


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _ctm(transcript: Transcript, name: str) -> str:
    name = "_".join(_plain(name).split()) or "recording"
    lines = []
    words = [word for word in transcript.words if _plain(word.text)]
    for word, (start, end, text) in zip(words, _in_ticks(words, 1_000), strict=True):
        confidence = "" if word.confidence is None else f" {word.confidence:.4f}"
        lines.append(f"{name} 1 {start / 1_000:.3f} {(end - start) / 1_000:.3f} {'_'.join(text.split())}{confidence}\n")
    return "".join(lines)
