"""Tables that name audio files: CSV, TSV, Parquet, and the `metadata.csv` or `metadata.jsonl` of an audio folder."""

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import pyarrow
import pyarrow.parquet
from datasets import DatasetDict

from hfasr.corpora.reading.locate import SPLITS, FileNames, Locator, in_order, split_of, stem_of
from hfasr.corpora.reading.mapping import table_mapping
from hfasr.corpora.reading.source import Source
from hfasr.corpora.reading.table import NO_TEXT, Entry, Problems
from hfasr.corpora.reading.tree import Paths, Tree, decode_text, unwrapped
from hfasr.paths import archived, read_bytes, segment_path

_ENDINGS = (".csv", ".tsv", ".parquet")
_DELIMITERS = ("\t", ";", "|", ",")
_METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
_BATCH = 10_000
# A quote that is never closed would otherwise swallow the rest of the table.
_LONGEST_FIELD = 100_000


def _recognise(tree: Tree) -> bool:
    top = unwrapped(tree)
    return any(_why_not(top, name) == "" for name in _tables(top))


SOURCE = Source(
    name="tabular",
    title="a table of audio files",
    layout="{train,dev,test}.csv (.tsv, .parquet) or metadata.csv beside the audio, with a column for the file and one for the text",
    recognise=_recognise,
    order=30,
)


@dataclass(frozen=True)
class _Format:
    """How tables are to be read; see `tabular`."""

    columns: dict[str, str] | None = None
    header: list[str] | None = None
    delimiter: str | None = None
    quotes: bool | None = None


def tabular(
    path: Paths,
    *,
    columns: dict[str, str] | None = None,
    header: list[str] | None = None,
    delimiter: str | None = None,
    quotes: bool | None = None,
    audio_root: str | os.PathLike | None = None,
    splits: Collection[str] | None = None,
    num_workers: int | None = None,
) -> DatasetDict:
    """Load a table with a column of audio files and a column of texts.

    Columns are found by the usual names in any case (`hfasr.corpora.reading.mapping.TABLE_NAMES`): audio by `audio`, `path`, `file_name`,
    `wav_filename`, …; text by `text`, `sentence`, `transcription`, …; also `id`, `speaker`, `gender`, `accent`, `source`, `duration`
    (s) or `duration_ms`, `start` (or `offset`) and `end` (s) for segments of recordings, and `split`.

    Args:
        path: A table; several as a list, or as a dict from split to one or several; or a folder or archive with one table, with
            `{train,dev,test}.csv`, or with `metadata.csv` at its top or in folders `train`, `dev`, `test`.
        columns: Our name to the table's, such as `{"text": "raw_text", "audio": "clip"}`, where the usual names do not do.
        header: Names of all columns when the table has none, such as LJSpeech's: `["audio", "raw", "text"]`.
        delimiter: What separates fields; when None a tab in .tsv, else the likeliest of tab, semicolon, bar and comma.
        quotes: Whether "…" encloses fields; when None yes in tables separated by comma or semicolon, else quotes are literal.
        audio_root: Where the audio is when the table is from another machine, see `Locator`.
        splits: Which splits, by the names of the result; all when None.
        num_workers: Threads that look for the files and read missing durations; four a core when None.

    Returns:
        Splits by the column `split`, else by the dict, else by the file's or its folder's name, else "train". Rows as in
        `hfasr.corpora.rows`, audio decoded at 16 kHz on access. A file is relative to its table, or to the one folder beside it
        that has the files, and may lack its ending. Without a column `id` the id is the file's name without its ending, with
        `-<start>-<end>` in ms for a segment; when two files have the same name, it is the path below the folder that all have in
        common, for all rows. Rows that cannot be used are left out; they and missing files are counted in a warning and listed
        (`hfasr inspect`).

    Raises:
        FileNotFoundError: A table, or `audio_root`, does not exist.
        ValueError: A column is missing, a table holds the audio itself (`hub` reads those), no row, or none of the audio is there.
    """
    root = None if audio_root is None else os.path.abspath(os.path.expanduser(audio_root))
    if isinstance(path, str | os.PathLike) and os.path.isfile(path) and header is not None:
        path = [path]  # whatever its ending
    style = _Format(columns, header, delimiter, quotes)
    return SOURCE.load(
        path,
        partial(_read, style=style, audio_root=root),
        options={"columns": columns, "header": header, "delimiter": delimiter, "quotes": quotes, "audio_root": root},
        splits=splits,
        choose=_choose,
        num_workers=num_workers,
    )


def _choose(tree: Tree) -> Tree:
    top = unwrapped(tree)
    return top if _tables(top) else SOURCE.refuse(top, "no table")


def _tables(tree: Tree) -> list[str]:
    """Return the tables of a corpus: those that the user named, else metadata, else what is named after splits, else the only one."""
    if tree.given is not None:
        return [name for name in tree.given if name.lower().endswith((*_ENDINGS, "metadata.jsonl")) or len(tree.given) == 1]
    folders = ["", *(folder for folder in tree.folders() if folder.lower() in SPLITS)]
    if metadata := [name for folder in folders for name in tree.files(folder) if name.rpartition("/")[2] in _METADATA]:
        return metadata
    tables = [name for name in tree.files() if name.lower().endswith(_ENDINGS)]
    return [name for name in tables if split_of(name) in SPLITS.values()] or (tables if len(tables) == 1 else [])


def _why_not(tree: Tree, name: str) -> str:
    """Say why a file is no table of audio files; nothing when it is one."""
    if not name.lower().endswith((*_ENDINGS, ".jsonl")):
        return "is no .csv, .tsv, .jsonl or .parquet"
    try:
        found, _ = _open(tree, name, _Format())
        table_mapping(found, name)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def _read(tree: Tree, problems: Problems, *, style: _Format, audio_root: str | None) -> Iterator[Entry]:
    splits = {name: (tree.given or {}).get(name) or _split_of(name) for name in _tables(tree)}
    names, mappings = FileNames(), {}
    for name in splits:
        found, rows = _open(tree, name, style)
        mappings[name] = table_mapping(found, tree.label(name), style.columns)
        places = [found.index(mappings[name][ours]) if ours in mappings[name] else None for ours in ("audio", "start", "end")]
        for _, row in rows:
            if len(row) == len(found) and isinstance(row[places[0]], str):
                names.add(row[places[0]], tuple(None if place is None else row[place] for place in places[1:]))
    top = names.top()
    for name in sorted(splits, key=lambda name: in_order(set(splits.values())).index(splits[name])):
        found, _ = _open(tree, name, style)
        mapping = mappings[name]
        place = found.index(mapping["audio"])
        paths = (row[place] for _, row in _open(tree, name, style)[1] if len(row) == len(found) and row[place])
        locator = Locator(tree, name, paths, audio_root)
        yield from _entries(tree, name, style, mapping, locator, splits[name], top, problems)


def _split_of(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return SPLITS.get(folder.lower()) if file in _METADATA and folder else split_of(file, "train")


def _entries(
    tree: Tree, name: str, style: _Format, mapping: dict[str, str], locator: Locator, split: str, top: str | None, problems: Problems
) -> Iterator[Entry]:
    found, rows = _open(tree, name, style)
    places = {ours: found.index(theirs) for ours, theirs in mapping.items()}
    for number, row in rows:
        where = f"{name}, {'row' if name.lower().endswith('.parquet') else 'line'} {number}"
        if len(row) != len(found):
            problems.add("row without the columns of its header", where, f"{len(row)} of {len(found)} columns")
            continue
        values = {ours: row[place] for ours, place in places.items()}
        if not isinstance(values["audio"], str) or not values["audio"]:
            problems.add("row that names no audio", where, repr(values["audio"]))
        elif not isinstance(values["text"], str):
            problems.add(NO_TEXT, where, f"text is {values['text']!r}")
        elif (entry := _entry(values, split, locator, top, where, problems)) is not None:
            yield entry


def _entry(values: dict, split: str, locator: Locator, top: str | None, where: str, problems: Problems) -> Entry | None:
    audio = locator(values["audio"])
    duration = _seconds(values, "duration", where, problems)
    if duration is None and (milliseconds := _seconds(values, "duration_ms", where, problems)) is not None:
        duration = milliseconds / 1000
    row = _word(values.get("id"))
    stem = row or stem_of(values["audio"], top)
    if (start := _seconds(values, "start", where, problems)) is not None:
        end = _seconds(values, "end", where, problems)
        end = start + duration if end is None and duration is not None else end
        if end is not None and end <= start:
            problems.add("segment that is not possible", where, f"{start} to {end} s")
            return None
        audio = segment_path(audio, start, end)
        duration = duration if end is None else end - start
        stem = row or f"{stem}-{round(start * 1000)}-{'' if end is None else round(end * 1000)}"
    elif values.get("start") not in (None, ""):
        return None  # a problem by now
    if named := _word(values.get("split")):
        split = SPLITS.get(named.lower(), named)
    known = {ours: _word(values.get(ours)) for ours in ("speaker", "gender", "accent", "source")}
    return Entry(split, stem, audio, text=values["text"], duration=duration, **known)


def _word(value: object) -> str | None:
    """Return a cell as text, None for an empty one."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value)


def _seconds(values: dict, key: str, where: str, problems: Problems) -> float | None:
    """Return a number; None, and a problem unless the cell is empty, when it cannot be."""
    if _word(value := values.get(key)) is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (seconds > 0 or (seconds == 0 and key == "start")) or seconds == math.inf:
        problems.add(f"{key} that is not possible", where, repr(value))
        return None
    return seconds


def _open(tree: Tree, name: str, style: _Format) -> tuple[list[str], Iterator[tuple[int, list]]]:
    """Return a table's columns, and its rows with their line numbers (rows of Parquet count from 1)."""
    kind = name.lower().rpartition(".")[2]
    if kind == "parquet":
        return _open_parquet(tree, name)
    if kind == "jsonl":
        return _open_json(tree, name)
    label = tree.label(name)
    delimiter = style.delimiter or ("\t" if kind == "tsv" else _likeliest(list(islice(_text_lines(tree, name), 10))))
    quotes = style.quotes if style.quotes is not None else delimiter in ",;"
    rows = _csv_rows(tree, name, delimiter, quotes)
    found = style.header
    if found is None:
        found = [column.strip() for column in next(rows, (0, []))[1]]
    if len(set(found)) < len(found):
        twice = next(column for column in found if found.count(column) > 1)
        raise ValueError(f"{label}: column {twice!r} stands twice in {', '.join(found)}")
    return found, rows


def _likeliest(lines: list[str]) -> str:
    """Return the delimiter that stands equally often in the first lines, else most often in the first one."""
    counts = {delimiter: {line.count(delimiter) for line in lines if line.strip()} for delimiter in _DELIMITERS}
    steady = [delimiter for delimiter, count in counts.items() if len(count) == 1 and count != {0}]
    return steady[0] if steady else max(_DELIMITERS, key=(lines or [""])[0].count)


def _csv_rows(tree: Tree, name: str, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_text_lines(tree, name), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
    start = 1
    try:
        for row in reader:
            if any(len(field) > _LONGEST_FIELD for field in row):
                raise csv.Error(f"field of more than {_LONGEST_FIELD} characters")
            if row and any(row):
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{tree.label(name)}, line {start}: {error}; is a quote not closed? Give quotes=False when quotes are literal"
        ) from None


def _text_lines(tree: Tree, name: str) -> Iterator[str]:
    where = tree.where(name)
    tree.remember(where)
    label = tree.label(name)
    with io.BytesIO(read_bytes(where)) if archived(where) else open(where, "rb") as file:
        for number, line in enumerate(file, start=1):
            yield decode_text(line, label, number)


def _open_json(tree: Tree, name: str) -> tuple[list[str], Iterator[tuple[int, list]]]:
    """Take the keys of the first record as the columns."""

    def records() -> Iterator[tuple[int, dict]]:
        for number, line in tree.lines(name):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{tree.label(name)}, line {number}: not JSON ({error})") from None
            if not isinstance(record, dict):
                raise ValueError(f"{tree.label(name)}, line {number}: a JSON object was expected, found {type(record).__name__}")
            yield number, record

    found = list(next(records(), (0, {}))[1])
    return found, ((number, [record.get(column) for column in found]) for number, record in records())


def _open_parquet(tree: Tree, name: str) -> tuple[list[str], Iterator[tuple[int, list]]]:
    where = tree.where(name)
    tree.remember(where)
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(read_bytes(where)) if archived(where) else where)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{tree.label(name)}: not a whole Parquet file ({error})") from None
    schema = file.schema_arrow
    columns = schema.names
    if held := next((field.name for field in schema if _holds_bytes(field.type)), None):
        raise ValueError(
            f"{tree.label(name)}: column {held!r} holds the audio itself; use corpora.hub, or --source hub, "
            "or stream_rows for Parquet too large for a copy in the cache"
        )

    def rows() -> Iterator[tuple[int, list]]:
        number = 0
        for batch in file.iter_batches(_BATCH, columns=columns):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, list(row)

    return columns, rows()


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
    return binary or (pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
