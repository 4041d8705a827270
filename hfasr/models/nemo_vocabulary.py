"""The vocabulary of a `.nemo` checkpoint as a stock Transformers tokenizer: labels, sentencepiece or wordpiece.

The blank has id 0 and NeMo's label k id k + 1. Decoding gives NeMo 3.0.0's text (nemo/collections/asr/parts/submodules/ctc_decoding.py).
"""

import math
import re
import unicodedata
from collections import Counter

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ParakeetTokenizer

BOUNDARY = "▁"
# tokens that NeMo looks past when it collects the punctuation of a vocabulary (asr/parts/utils/tokenizer_utils.py)
_NO_PUNCTUATION = re.compile(r"\[.*\]$|<.*>$|##|▁|\s*$")
# whitespace as Python's re has it: Oniguruma's \s lacks four control characters
_SPACE = r"[\s\x{1c}-\x{1f}]"
# those that NeMo's wordpiece tokenizer has unless the config names others: bert-base-cased's
SPECIAL_TOKENS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_MOST_PIECES, _LONGEST_PIECE, _MOST_CONTROL_PIECES = 200_000, 256, 100
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_UNIGRAM, _BPE = 1, 2


def character_tokenizer(labels: list[str]) -> ParakeetTokenizer:
    """Make a tokenizer that reads and writes one label per character, and drops characters that are none, as NeMo does.

    Raises:
        ValueError: a label is no text, or stands twice.
    """
    _check_labels(labels)
    blank = _blank(labels)
    # BPE without merges is the one model of the tokenizers library that needs no unknown symbol
    tokenizer = Tokenizer(models.BPE(vocab=_ids(labels, blank), merges=[]))
    return _finished(tokenizer, [decoders.Fuse()], labels, blank, unknown=None)


def sentencepiece_tokenizer(model: bytes) -> tuple[ParakeetTokenizer, list[str]]:
    """Make a tokenizer of a sentencepiece model, unigram or BPE.

    It encodes as sentencepiece does, with two exceptions in BPE models: a run such as "aaa" whose merges overlap may be cut in another
    order, and a user-defined piece is cut into its parts.

    Returns:
        The tokenizer, and the pieces in their order.

    Raises:
        ValueError: this is no such model, or one whose text Transformers would write differently.
    """
    proto = _parsed(model)
    pieces = [entry.piece for entry in proto.pieces]
    kinds = [entry.type for entry in proto.pieces]
    _check_pieces(proto, pieces, kinds)
    blank, unknown = _blank(pieces), kinds.index(_UNKNOWN)
    if proto.trainer_spec.model_type == _UNIGRAM:
        tokenizer = Tokenizer(models.Unigram([(blank, 0.0), *_unigram_scores(proto)], unk_id=unknown + 1, byte_fallback=False))
    else:
        merges = _merges(proto)
        tokenizer = Tokenizer(models.BPE(vocab=_ids(pieces, blank), merges=merges, unk_token=pieces[unknown], fuse_unk=True))
    spec = proto.normalizer_spec
    steps = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex(r"\A +| +\z"), "")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(BOUNDARY))
    tokenizer.normalizer = normalizers.Sequence(steps)
    across_words = any(BOUNDARY in piece[1:] for piece in pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(BOUNDARY, prepend_scheme="never", split=not across_words)
    return _finished(tokenizer, _sentencepiece_text(proto, pieces, kinds), pieces, blank, unknown=pieces[unknown]), pieces


def wordpiece_tokenizer(
    vocabulary: bytes, special_tokens: dict[str, str], labels: list | None = None
) -> tuple[ParakeetTokenizer, list[str]]:
    """Make a tokenizer of a BERT vocabulary, one token a line, that reads and writes as bert-base-cased with it.

    Args:
        vocabulary: the file.
        special_tokens: those that the config gives other names, such as `{"unk_token": "<unk>"}`.
        labels: of the decoder, which may go on behind the file's tokens: NeMo adds BERT's where the file lacks them.

    Returns:
        The tokenizer, and the tokens in their order.

    Raises:
        ValueError: the file is no such vocabulary.
    """
    try:
        text = vocabulary.decode()
    except UnicodeDecodeError:
        raise ValueError("the wordpiece vocabulary is not UTF-8, expected one token a line") from None
    tokens = re.split(r"\r\n|\r|\n", text, maxsplit=_MOST_PIECES + 1)
    if len(tokens) > _MOST_PIECES or max(map(len, [*tokens, *special_tokens.values()])) > _LONGEST_PIECE:
        raise ValueError(f"the wordpiece vocabulary has more than {_MOST_PIECES:,} tokens, or one of more than {_LONGEST_PIECE} characters")
    tokens = tokens[:-1] if tokens[-1] == "" else tokens
    if labels is not None and labels[: len(tokens)] == tokens:
        tokens = labels
    _check_labels(tokens)
    special = {**SPECIAL_TOKENS, **special_tokens}
    if special["unk_token"] not in tokens:
        raise ValueError(f"the wordpiece vocabulary has no {special['unk_token'][:40]!a}, the token for unknown words")
    blank = _blank(tokens)
    tokenizer = Tokenizer(models.WordPiece(_ids(tokens, blank), unk_token=special["unk_token"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # " ".join(tokens).replace(" ##", "").strip(); NeMo 3 keeps special tokens, older versions dropped them
    text_steps = [
        decoders.Replace(Regex(r"\A(?=.)"), " "),
        decoders.Fuse(),
        decoders.Replace(Regex(r"\A "), ""),
        decoders.Replace(" ##", ""),
        decoders.Replace(Regex(rf"\A{_SPACE}+|{_SPACE}+\z"), ""),
    ]
    return _finished(tokenizer, text_steps, tokens, blank, unknown=special["unk_token"]), tokens


def _finished(tokenizer: Tokenizer, text_steps: list, labels: list[str], blank: str, unknown: str | None) -> ParakeetTokenizer:
    """Add NeMo's rule for punctuation, and the class that joins repeats and drops the blank."""
    marks = {char for label in labels if not _NO_PUNCTUATION.match(label) for char in label if unicodedata.category(char)[0] == "P"}
    if marks:
        # one whitespace before a mark is dropped, not two
        text_steps = [*text_steps, decoders.Replace(Regex(f"{_SPACE}(?=[{''.join(map(_literal, sorted(marks)))}])"), "")]
    tokenizer.decoder = decoders.Sequence(text_steps)
    return ParakeetTokenizer(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        pad_token=blank,
        unk_token=unknown,
        bos_token=None,
        eos_token=None,
    )


def _literal(text: str) -> str:
    """Text as a pattern of Oniguruma that stands for itself."""
    return "".join(f"\\x{{{ord(char):x}}}" for char in text)


def _ids(labels: list[str], blank: str) -> dict[str, int]:
    return {label: place for place, label in enumerate([blank, *labels])}


def _blank(labels: list[str]) -> str:
    """Name the blank as no label is named."""
    taken = set(labels)
    names = ("<pad>", "<blank>", *(f"<blank{number}>" for number in range(len(labels))))
    return next(name for name in names if name not in taken)


def _check_labels(labels: list[str]) -> None:
    for place, label in enumerate(labels):
        if not isinstance(label, str) or not label or any("\ud800" <= char <= "\udfff" for char in label):
            found = f"{label[:40]!a}" if isinstance(label, str) else f"a {type(label).__name__}, to which YAML turns what lacks quotes"
            raise ValueError(f"label {place} of the vocabulary is {found}, expected text")
    if len(set(labels)) < len(labels):
        twice = Counter(labels).most_common(1)[0][0]
        raise ValueError(f"the vocabulary holds {twice[:40]!a} twice, which no tokenizer of Transformers can")


def _parsed(model: bytes):
    """ModelProto of a sentencepiece model; sentencepiece's own parser in C++ is not asked, which trusts the file."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(model)
        pieces = [entry.piece for entry in proto.pieces[: _MOST_PIECES + 1]]
    # protobuf's DecodeError, and UnicodeDecodeError of its versions in Python
    except Exception:
        raise ValueError("the sentencepiece model is broken, expected a tokenizer.model") from None
    if not 1 <= len(pieces) <= _MOST_PIECES or any(not 1 <= len(piece) <= _LONGEST_PIECE for piece in pieces):
        raise ValueError(f"the sentencepiece model has no pieces, over {_MOST_PIECES:,}, or one that is empty or too long; it is broken")
    return proto


def _check_pieces(proto, pieces: list[str], kinds: list[int]) -> None:
    """Refuse what would be written differently."""
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    _check_labels(pieces)
    unsupported = [
        name
        for name, found in (
            ("words or characters as pieces", trainer.model_type not in (_UNIGRAM, _BPE)),
            ("byte fallback", _BYTE in kinds),
            ("whitespace as a suffix", trainer.treat_whitespace_as_suffix),
            ("spaces that are not escaped", not normalizer.escape_whitespaces),
            ("a denormalizer", len(proto.denormalizer_spec.precompiled_charsmap) > 0),
        )
        if found
    ]
    if unsupported:
        raise ValueError(f"the sentencepiece model has {unsupported[0]}, which is not supported; unigram and BPE models are")
    if kinds.count(_CONTROL) > _MOST_CONTROL_PIECES:
        raise ValueError(f"the sentencepiece model has {kinds.count(_CONTROL):,} control pieces, expected at most {_MOST_CONTROL_PIECES}")
    if kinds.count(_UNKNOWN) != 1 or not all(math.isfinite(entry.score) for entry in proto.pieces):
        raise ValueError("the sentencepiece model has no unknown piece, or more than one, or scores that are no numbers; it is broken")
    if normalizer.precompiled_charsmap and not _is_charsmap(normalizer.precompiled_charsmap):
        raise ValueError("the sentencepiece model has a broken table of character normalisation")


def _is_charsmap(table: bytes) -> bool:
    """Tell whether no text can lead out of a normalisation table: a size, a double-array trie (Darts-clone), replacements that end in 0."""
    if len(table) < 4:
        return False
    size = int.from_bytes(table[:4], "little")
    units, replacements = np.frombuffer(table[4 : 4 + size // 4 * 4], "<u4"), table[4 + size :]
    if size % 4 or size > len(table) - 4 or not len(units) or not replacements.endswith(b"\0"):
        return False
    try:
        replacements.decode()
    except UnicodeDecodeError:
        return False
    inner = np.flatnonzero(units >> 31 == 0)
    offsets = (units[inner] >> 10) << ((units[inner] & (1 << 9)) >> 6)
    children = inner.astype(np.int64) ^ offsets
    leaves = children[(units[inner] >> 8) & 1 == 1]
    if (children | 255).max(initial=0) >= len(units):
        return False
    values = units[leaves] & 0x7FFFFFFF
    # a value is the first byte of a replacement; inside a character it would be cut
    begins = np.frombuffer(replacements, np.uint8) & 0xC0 != 0x80
    return bool((values < len(begins)).all() and begins[values].all())


def _unigram_scores(proto) -> list[tuple[str, float]]:
    """Pieces with their scores; a user-defined piece wins over any cut of its text (sentencepiece's unigram_model.cc)."""
    best = max((entry.score for entry in proto.pieces if entry.type == _NORMAL), default=0.0)
    return [(entry.piece, len(entry.piece) * best - 0.1 if entry.type == _USER_DEFINED else entry.score) for entry in proto.pieces]


def _merges(proto) -> list[tuple[str, str]]:
    """Pairs of pieces that make a piece, the best first: sentencepiece merges by the score of what comes out."""
    scores = {entry.piece: entry.score for entry in proto.pieces if entry.type in (_NORMAL, _USER_DEFINED, _UNUSED)}
    pairs = [
        (-score, place, (piece[:place], piece[place:]))
        for piece, score in scores.items()
        for place in range(1, len(piece))
        if piece[:place] in scores and piece[place:] in scores
    ]
    return [pair for _, _, pair in sorted(pairs, key=lambda entry: entry[:2])]


def _sentencepiece_text(proto, pieces: list[str], kinds: list[int]) -> list:
    """Steps from pieces to text (sentencepiece_processor.cc, DecodeSentencePiece)."""
    spec = proto.normalizer_spec
    steps = [
        # only the first boundary of a piece may be dropped at the beginning
        decoders.Replace(Regex(f"(?<={BOUNDARY}){BOUNDARY}"), " "),
        decoders.Replace(Regex(rf"\A{_literal(pieces[kinds.index(_UNKNOWN)])}\z"), proto.trainer_spec.unk_surface),
    ]
    if control := [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == _CONTROL]:
        steps.append(decoders.Replace(Regex(rf"\A(?:{'|'.join(map(_literal, control))})\z"), ""))
    steps.append(decoders.Fuse())
    if spec.add_dummy_prefix or spec.remove_extra_whitespaces:
        steps.append(decoders.Replace(Regex(rf"\A{BOUNDARY}{'+' if spec.remove_extra_whitespaces else ''}"), ""))
    return [*steps, decoders.Replace(BOUNDARY, " ")]
