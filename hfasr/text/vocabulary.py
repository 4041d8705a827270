"""Targets -> a stock Transformers tokenizer, and a record in it of how the targets were made."""

import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

BLANK, UNKNOWN = "<pad>", "<unk>"
UNITS = ("phoneme", "character")

logger = logging.getLogger(__name__)


def split_target(target: str, unit: str) -> list[str]:
    """Split a target into its symbols: phonemes at spaces, characters one by one with the space as `|`."""
    _check_unit(unit)
    return target.split() if unit == "phoneme" else ["|" if char == " " else char for char in target]


def build_tokenizer(targets: Iterable[str], unit: str = "phoneme", *, min_count: int = 1, record: dict | None = None):
    """Build the tokenizer of a training split's targets.

    The blank is `<pad>`, id 0; `<unk>` is id 1; symbols follow in code-point order, so equal symbol sets give equal ids.
    Phonemes of several characters stay whole. The result survives `save_pretrained` and `AutoTokenizer`.

    Args:
        targets: Phonemes split by spaces (words by ` | `) or plain characters, as `unit` says.
        unit: "phoneme" or "character".
        min_count: Symbols seen less often become `<unk>`.
        record: How the targets were made (see `target_record`), stored in the tokenizer's configuration.

    Returns:
        `Wav2Vec2PhonemeCTCTokenizer` or `Wav2Vec2CTCTokenizer`.

    Raises:
        ValueError: No symbol is left, or a symbol has the name of a special one.
    """
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2PhonemeCTCTokenizer

    counts = Counter(symbol for target in targets for symbol in split_target(target, unit))
    if reserved := {BLANK, UNKNOWN} & set(counts):
        raise ValueError(
            f"targets hold {', '.join(sorted(reserved))}, which the tokenizer needs for itself; remove it from the transcripts"
        )
    symbols = sorted(symbol for symbol, count in counts.items() if count >= min_count)
    if not symbols:
        raise ValueError(f"the targets hold no symbol seen {min_count} times or more; is the text column empty?")
    if dropped := sorted(set(counts) - set(symbols)):
        logger.warning("%d symbols seen less than %d times become %s: %s", len(dropped), min_count, UNKNOWN, " ".join(dropped))
    vocabulary = {symbol: place for place, symbol in enumerate([BLANK, UNKNOWN, *symbols])}
    settings = {"unk_token": UNKNOWN, "pad_token": BLANK, "bos_token": None, "eos_token": None, "hfasr": {"unit": unit, **(record or {})}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.json")
        path.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        if unit == "phoneme":
            # A word_delimiter_token would be dropped in decoding, and bos and eos would add two ids past the vocabulary.
            return Wav2Vec2PhonemeCTCTokenizer(str(path), do_phonemize=False, **settings)
        return Wav2Vec2CTCTokenizer(str(path), word_delimiter_token="|", **settings)


def missing_symbols(targets: Iterable[str], tokenizer, unit: str) -> Counter:
    """Count the symbols of other splits that the tokenizer lacks."""
    known = set(tokenizer.get_vocab())
    return Counter(symbol for target in targets for symbol in split_target(target, unit) if symbol not in known)


def target_record(targets: Iterable[str], *, voice: str | None = None, espeak_version: str | None = None) -> dict:
    """Describe how targets were made: espeak-ng voice and version, and a SHA-256 over the targets in order."""
    digest = hashlib.sha256()
    for target in targets:
        digest.update(target.encode() + b"\n")
    record = {"targets_sha256": digest.hexdigest()}
    if voice is not None:
        record |= {"voice": voice, "espeak_version": espeak_version}
    return record


def check_target_record(stored: dict | None, record: dict, *, same_rows: bool) -> None:
    """Refuse to go on with a model whose targets were made in another way.

    Args:
        stored: The model's record, as `build_tokenizer` put it under `tokenizer.init_kwargs["hfasr"]`; a model that was not
            made by hfasr has none and passes.
        record: Of the targets at hand.
        same_rows: The rows should be the same ones too (resuming a run), so their hash must agree.

    Raises:
        ValueError: Unit, voice, espeak-ng version or hash differ; the message names both values.
    """
    names = ["unit", "voice", "espeak_version"] + (["targets_sha256"] if same_rows else [])
    for name in names:
        if stored and name in record and name in stored and record[name] != stored[name]:
            raise ValueError(
                f"the model was trained on targets with {name} {stored[name]!r}, these have {record[name]!r}: its symbols would silently "
                "mean something else. Use the same corpus, voice and espeakng-loader version, or start a new run"
            )


def _check_unit(unit: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is not known; use one of {', '.join(UNITS)}")
