"""Targets -> a stock Transformers tokenizer, a record in it of how the targets were made, and label ids.

Letters in shapes: N targets, L labels of all of them.
"""

import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hfasr.text.pieces import RESERVED_CHARACTERS, learn_pieces, piece_tokenizer

BLANK, UNKNOWN = "<pad>", "<unk>"
# unit of a tokenizer: what the evaluation counts
UNITS = {"phoneme": "phoneme", "character": "character", "sentencepiece": "character"}
_PIECES = 256
_CHUNK = 10_000
_MOST_NAMED = 50

logger = logging.getLogger(__name__)


class Labels(NamedTuple):
    """Label ids of N targets: those of the n-th are `ids[offsets[n] : offsets[n + 1]]`."""

    ids: np.ndarray
    """int32 `(L,)`."""
    offsets: np.ndarray
    """int64 `(N + 1,)`."""


def split_target(target: str, unit: str) -> list[str]:
    """Split a target into its symbols: phonemes at spaces; characters one by one with the space as `|`, or without it for pieces."""
    _check_unit(unit)
    if unit == "phoneme":
        return [symbol for symbol in target.strip().split(" ") if symbol.strip()]
    return ["|" if char == " " else char for char in (target if unit == "character" else target.replace(" ", ""))]


def evaluated_as(unit: str) -> str:
    """Return what the evaluation of a tokenizer's unit counts: "phoneme", or "character" for all that decodes to plain text."""
    _check_unit(unit)
    return UNITS[unit]


def build_tokenizer(
    targets: Iterable[str],
    unit: str = "phoneme",
    *,
    min_count: int = 1,
    vocab_size: int | None = None,
    alphabet: str | None = None,
    record: dict | None = None,
):
    """Build the tokenizer of a training split's targets.

    The blank is `<pad>`, id 0; `<unk>` is id 1; symbols follow in code-point order, so equal symbol sets give equal ids.
    Phonemes of several characters stay whole. Pieces are learned from all targets, their words counted, and follow in
    sentencepiece's order; every character is one of them. With an alphabet the outputs are the blank and its characters, in its
    order, and no unknown one: any other character becomes the blank, by which `CTCTrainer` finds the rows it leaves out. The
    result survives `save_pretrained` and `AutoTokenizer`.

    Args:
        targets: Phonemes split by spaces (words by ` | `), or plain text with single spaces, as `unit` says.
        unit: "phoneme", "character" or "sentencepiece".
        min_count: Symbols (characters for pieces) seen less often become `<unk>`.
        vocab_size: Number of pieces, with blank and unknown; 256 when None. The other units have as many as there are symbols.
        alphabet: Characters to have whatever the targets hold, such as those of a published model; for unit "character".
        record: How the targets were made (see `target_record`), stored in the tokenizer's configuration.

    Returns:
        `Wav2Vec2PhonemeCTCTokenizer`, `Wav2Vec2CTCTokenizer`, or `ParakeetTokenizer` for pieces.

    Raises:
        ValueError: No symbol is left, one cannot be kept apart from those the tokenizer needs for itself, the targets do not
            give `vocab_size` pieces, or share no character with the alphabet.
    """
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2PhonemeCTCTokenizer

    _check_unit(unit)
    if vocab_size is not None and unit != "sentencepiece":
        raise ValueError(f"vocab_size is for unit 'sentencepiece'; {unit}s are as many as the targets have, min_count can lower that")
    if alphabet is not None:
        _check_alphabet(alphabet, unit, min_count)
    counts, words = Counter(), Counter()
    for chunk in _chunks(targets):
        counts += _count(chunk, unit, refuse=True)
        if unit == "sentencepiece":
            words.update(" ".join(chunk).split())
    if alphabet is None:
        symbols = sorted(symbol for symbol, count in counts.items() if count >= min_count)
    else:
        symbols = split_target(alphabet, unit)
    if not set(symbols) & set(counts):
        seen = f"seen {min_count} times or more" if alphabet is None else f"of the alphabet {alphabet!r}"
        raise ValueError(f"the targets hold no symbol {seen}; is the text column empty?")
    if dropped := sorted(set(counts) - set(symbols)):
        named = ", ".join(f"{symbol} ({counts[symbol]})" for symbol in dropped[:_MOST_NAMED])
        if alphabet is None:
            logger.warning("%d symbols seen less than %d times become %s: %s", len(dropped), min_count, UNKNOWN, named)
        else:
            logger.warning("%d symbols are not in the alphabet, rows that hold them cannot be trained on: %s", len(dropped), named)
    unknown = UNKNOWN if alphabet is None else BLANK
    settings = {"unk_token": unknown, "pad_token": BLANK, "bos_token": None, "eos_token": None, "hfasr": {"unit": unit, **(record or {})}}
    if unit == "sentencepiece":
        model = learn_pieces(_without(words, dropped), _PIECES if vocab_size is None else vocab_size, (BLANK, UNKNOWN))
        return piece_tokenizer(model, **settings)
    reserved = dict.fromkeys([BLANK, unknown])
    vocabulary = {symbol: place for place, symbol in enumerate([*reserved, *symbols])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.json")
        path.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        if unit == "phoneme":
            # A word_delimiter_token would be dropped in decoding, and bos and eos would add two ids past the vocabulary.
            return Wav2Vec2PhonemeCTCTokenizer(str(path), do_phonemize=False, **settings)
        # A delimiter that is no symbol would become an output past the vocabulary; the blank is never decoded.
        return Wav2Vec2CTCTokenizer(str(path), word_delimiter_token="|" if "|" in vocabulary else BLANK, **settings)


def missing_symbols(targets: Iterable[str], tokenizer, unit: str) -> Counter:
    """Count the symbols of other splits that the tokenizer lacks; for pieces, the characters."""
    _check_unit(unit)
    known = set(tokenizer.get_vocab())
    counts = Counter()
    for chunk in _chunks(targets):
        counts += _count(chunk, unit, refuse=False)
    return Counter({symbol: count for symbol, count in counts.items() if symbol not in known})


def encode_targets(tokenizer, targets: Iterable[str]) -> Labels:
    """Turn targets into label ids, equal to `tokenizer(target).input_ids` of each and many times as fast.

    Only a tokenizer of `build_tokenizer` is known well enough for that; another one is asked target by target. Where the
    training text had no space, as in Chinese, a space is one `<unk>`; Transformers would spell out `<pad>` for it.
    """
    unit = stored_record(tokenizer).get("unit")
    ours = unit in UNITS and len(tokenizer) == tokenizer.vocab_size
    encode = {"phoneme": _PhonemeIds, "character": _CharacterIds, "sentencepiece": _PieceIds}[unit](tokenizer) if ours else None
    ids, lengths = [], []
    for chunk in _chunks(targets):
        joined = " ".join(chunk)
        plain = not any(name in joined for name in (BLANK, UNKNOWN, *RESERVED_CHARACTERS)) and (unit == "character" or _one_space(joined))
        found = encode(chunk) if ours and plain else _stock_ids(tokenizer, chunk)
        ids.append(found[0])
        lengths.append(found[1])
    ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
    return Labels(np.concatenate([np.zeros(0, np.int32), *ids]), ends)


def target_record(targets: Iterable[str], **made_by: str | None) -> dict:
    """Describe how targets were made: a SHA-256 over them in order, and the `record` of the `Phonemizer` or `Normalizer`."""
    digest = hashlib.sha256()
    for target in targets:
        digest.update(target.encode() + b"\n")
    return {"targets_sha256": digest.hexdigest(), **{name: value for name, value in made_by.items() if value is not None}}


def stored_record(tokenizer) -> dict:
    """Return what `build_tokenizer` put into a tokenizer: its unit and how the targets were made; {} for one that is not hfasr's."""
    return tokenizer.init_kwargs.get("hfasr") or {}


def check_target_record(stored: dict | None, record: dict, *, same_rows: bool) -> None:
    """Refuse to go on with a model whose targets were made in another way.

    Args:
        stored: The model's record, as `build_tokenizer` put it under `tokenizer.init_kwargs["hfasr"]`; a model that was not
            made by hfasr has none and passes.
        record: Of the targets at hand.
        same_rows: The rows should be the same ones too (resuming a run), so the hashes of targets and lexicon must agree.

    Raises:
        ValueError: Unit, voice, espeak-ng version or hash differ; the message names both values.
    """
    if not stored:
        return
    differing = [name for name in ("unit", "voice", "espeak_version") if name in record and name in stored and record[name] != stored[name]]
    if same_rows and "targets_sha256" in record and "targets_sha256" in stored:
        # a run without a lexicon has no hash of one, which differs from any
        differing += [name for name in ("lexicon_sha256", "targets_sha256") if record.get(name) != stored.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"the model was trained on targets with {name} {stored.get(name)!r}, these have {record.get(name)!r}: its symbols would "
            "silently mean something else. Use the same corpus, voice, lexicon and espeakng-loader version, or start a new run"
        )


def _check_unit(unit: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is not known; use one of {', '.join(UNITS)}")


def _check_alphabet(alphabet: str, unit: str, min_count: int) -> None:
    if unit != "character" or min_count > 1:
        raise ValueError("alphabet is for unit 'character' and names all symbols; leave out min_count")
    if len(set(alphabet)) < len(alphabet) or "|" in alphabet or not alphabet.strip():
        raise ValueError(f"alphabet is {alphabet!r}; give different characters, among them a space for one between words, and no bar")


def _chunks(targets: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(targets)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _one_space(text: str) -> bool:
    """Tell whether the space is the only whitespace."""
    return text.isprintable() or not any(char.isspace() for char in set(text) - {" "})


def _symbols(chunk: list[str], unit: str) -> list[str]:
    """Phonemes of all targets of a chunk in one list."""
    joined = " ".join(chunk)
    return joined.split() if _one_space(joined) else list(chain.from_iterable(split_target(target, unit) for target in chunk))


def _count(chunk: list[str], unit: str, *, refuse: bool) -> Counter:
    """Count the symbols of a chunk; a bar in plain text, which would be read as a space, counts as the text `| (bar)`."""
    if unit == "phoneme":
        counts = Counter(_symbols(chunk, unit))
        names = [name for name in (BLANK, UNKNOWN) if any(name in symbol for symbol in counts)]
    else:
        joined = "".join(chunk)
        counts = Counter(joined)
        spaces, bars = counts.pop(" ", 0), counts.pop("|", 0) if unit == "character" else 0
        names = [name for name in (BLANK, UNKNOWN) if name in joined and any(name in target for target in chunk)]
        if unit == "character":
            counts |= {name: count for name, count in (("|", spaces), ("| (bar)", bars)) if count}
            names += ["|"] if bars else []
        else:
            names += [name for name in RESERVED_CHARACTERS if counts[name]]
    if refuse and names:
        raise ValueError(f"targets hold {', '.join(names)}, which the tokenizer needs for itself; remove it from the transcripts")
    if refuse and (broken := [symbol for symbol in counts if any("\ud800" <= char <= "\udfff" for char in symbol)]):
        raise ValueError(f"targets hold half a character, {broken[0]!a}; the transcripts were read in a wrong encoding")
    return counts


def _without(words: Counter[str], characters: list[str]) -> Counter[str]:
    """Words cut at the characters that shall have no piece."""
    if not characters:
        return words
    table, kept = str.maketrans(dict.fromkeys(characters, " ")), Counter()
    for word, count in words.items():
        for part in word.translate(table).split():
            kept[part] += count
    return kept


def _stock_ids(tokenizer, chunk: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = [tokenizer(target).input_ids if target else [] for target in chunk]
    return _flat(rows)


def _flat(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths


class _PhonemeIds(dict):
    """Symbol -> id; called with a chunk of targets it gives their ids `(L,)` and lengths `(N,)`."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer.get_vocab())
        self._unknown = tokenizer.unk_token_id

    def __missing__(self, symbol: str) -> int:
        return self._unknown

    def __call__(self, chunk: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [target.split() for target in chunk]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(map(self.__getitem__, chain.from_iterable(rows)), np.int32, int(lengths.sum())), lengths


class _CharacterIds:
    """Code point -> id by a table, called as `_PhonemeIds`."""

    def __init__(self, tokenizer):
        ids = tokenizer.get_vocab()
        self._table = np.full(0x110000, tokenizer.unk_token_id, np.int32)
        for symbol, place in ids.items():
            if len(symbol) == 1:
                self._table[ord(symbol)] = place
        self._table[ord(" ")] = self._table[ord("|")]

    def __call__(self, chunk: list[str]) -> tuple[np.ndarray, np.ndarray]:
        codes = np.frombuffer("".join(chunk).encode("utf-32-le"), "<u4")
        return self._table.take(codes), np.fromiter(map(len, chunk), np.int64, len(chunk))


class _PieceIds:
    """Word -> ids of its pieces, asked of the tokenizer once for each word; called as `_PhonemeIds`."""

    _MOST_WORDS = 1_000_000

    def __init__(self, tokenizer):
        self._tokenizer, self._ids = tokenizer, {}

    def __call__(self, chunk: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [target.split() for target in chunk]
        if len(self._ids) > self._MOST_WORDS:
            self._ids.clear()
        if fresh := list(dict.fromkeys(word for row in rows for word in row if word not in self._ids)):
            self._ids.update(zip(fresh, self._tokenizer(fresh).input_ids, strict=True))
        return _flat([list(chain.from_iterable(map(self._ids.__getitem__, row))) for row in rows])
