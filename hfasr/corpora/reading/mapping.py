"""What data sets and tables call the columns of our rows."""

from collections.abc import Collection, Iterable

from datasets import Audio, Features

from hfasr.corpora.rows import FEATURES

# Ours -> theirs, the best first.
NAMES = {
    "id": ("id", "utterance_id", "utt_id", "segment_id", "__key__", "path", "file"),
    "text": (
        "text", "sentence", "transcription", "transcript", "normalized_text", "txt", "raw_transcription", "raw_text",
    ),
    "duration": ("duration", "duration_seconds", "duration_s", "audio_duration", "length_seconds"),
    "speaker": ("speaker", "client_id", "speaker_id", "speakerid", "spk_id", "spk", "speaker_name"),
    "gender": ("gender", "sex"),
    "accent": ("accent", "accents", "dialect"),
    "source": ("source",),
}  # fmt: skip

# Tables also name files, and segments of them.
TABLE_NAMES = NAMES | {
    "id": ("id", "utterance_id", "utt_id", "segment_id", "key"),
    "audio": (
        "audio", "audio_filepath", "audio_path", "audio_file", "audio_filename",
        "path", "file_path", "filepath", "file", "file_name", "filename",
        "wav", "wav_filename", "wav_path", "wav_file", "clip", "clip_path", "recording",
    ),
    "duration_ms": ("duration_ms", "duration[ms]", "length_ms"),
    "start": ("start", "offset", "start_time", "segment_start", "start_seconds"),
    "end": ("end", "end_time", "segment_end", "end_seconds"),
    "split": ("split", "subset", "partition"),
}  # fmt: skip


def named_columns(found: Iterable[str], names: dict[str, tuple[str, ...]] = NAMES) -> dict[str, str]:
    """Return our name to the best of the source's, where there is one."""
    there = {ours: [name for name in theirs if name in found] for ours, theirs in names.items()}
    return {ours: theirs[0] for ours, theirs in there.items() if theirs}


def check_named(columns: dict[str, str] | None, found: Collection[str], ours: Collection[str] = FEATURES) -> dict[str, str]:
    """Return the columns that the user named.

    Raises:
        ValueError: One is none of ours, or is not found.
    """
    there = ", ".join(map(str, found))
    for name, theirs in (columns or {}).items():
        if name not in ours:
            raise ValueError(f"columns names {name!r}, which no row has; a row has {', '.join(ours)}")
        if theirs not in found:
            raise ValueError(f"there is no column {theirs!r}, found {there}")
    return columns or {}


def row_mapping(features: Features, columns: dict[str, str] | None = None) -> dict[str, str]:
    """Find our columns in those of a data set.

    Args:
        features: Of the data set.
        columns: Our name to the data set's, for those that are not to be guessed.

    Returns:
        Our name to the data set's, `audio` and `text` always, the others where there are any.

    Raises:
        ValueError: A named column does not exist, or there is none, or more than one, for audio, or none for text.
    """
    columns, found = check_named(columns, features), ", ".join(features)
    mapping = named_columns(features)
    # a number is rarely one utterance's own: in FLEURS it is the sentence's, which several people read
    if features.get("id") is not None and getattr(features["id"], "dtype", "string") != "string":
        mapping["id"] = next((name for name in NAMES["id"][1:] if name in features), "id")
    mapping |= {"audio": "audio"} if "audio" in features else {}
    mapping |= columns
    if "audio" not in mapping:
        audio = [name for name, feature in features.items() if isinstance(feature, Audio)]
        if len(audio) != 1:
            several = f"several audio columns ({', '.join(audio)})" if audio else "no audio column"
            raise ValueError(f"{several}, found {found}; name it with columns={{'audio': ...}}")
        mapping["audio"] = audio[0]
    if "text" not in mapping:
        raise ValueError(f"no column with the text, found {found}; name it with columns={{'text': ...}}")
    return mapping


def table_mapping(found: list[str], label: str, columns: dict[str, str] | None = None) -> dict[str, str]:
    """Find our columns in a table's, whatever their case.

    Args:
        found: The table's columns.
        label: Of the table, for messages.
        columns: Our name to the table's, for those that are not to be guessed; also "split", "start", "end", "duration_ms".

    Raises:
        ValueError: A named column does not exist, or there is none for audio or for text.
    """
    try:
        given = check_named(columns, found, TABLE_NAMES)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    lower: dict[str, str] = {}
    for name in found:
        lower.setdefault(name.strip().lower(), name)
    mapping = {ours: lower[name] for ours, name in named_columns(lower, TABLE_NAMES).items()} | given
    for ours, what in (("audio", "the audio"), ("text", "the text")):
        if ours not in mapping:
            known = ", ".join(TABLE_NAMES[ours][:6])
            raise ValueError(
                f"{label} has no column for {what} ({known}, …), found {', '.join(found) or 'an empty file'}; "
                f"name it with columns={{{ours!r}: ...}}, or give header=[...] when the table has no header"
            )
    return mapping
