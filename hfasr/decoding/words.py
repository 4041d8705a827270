"""Tokens of a hypothesis -> its words, with the frames that they hold; words -> label ids.

A word ends at the tokenizer's boundary: `|` or a space between characters or phonemes, `▁` in front of a sentencepiece. Where a
vocabulary has no boundary, as that of Chinese characters or of phonemes without word bars, every symbol is a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from transformers import PreTrainedTokenizerBase, Wav2Vec2PhonemeCTCTokenizer

from hfasr.decoding.greedy import labels_to_text
from hfasr.decoding.hypothesis import Token, TokenSpan
from hfasr.text.vocabulary import UNITS, encode_targets, missing_symbols, stored_record

SEPARATORS = ("|", " ")
PIECE_START = "▁"


@dataclass(frozen=True)
class Boundaries:
    """Which label ids stand between words, and which begin one."""

    separators: frozenset[int]
    starts: frozenset[int]

    @property
    def none(self) -> bool:
        """Whether every symbol is a word."""
        return not (self.separators or self.starts)


@lru_cache(maxsize=16)
def boundaries(tokenizer: PreTrainedTokenizerBase) -> Boundaries:
    """Find the word boundaries of a tokenizer's vocabulary."""
    symbols = tokenizer.get_vocab()
    ordinary = {symbol: index for symbol, index in symbols.items() if index != tokenizer.pad_token_id}
    return Boundaries(
        frozenset(index for symbol, index in ordinary.items() if symbol in SEPARATORS),
        frozenset(index for symbol, index in ordinary.items() if symbol.startswith(PIECE_START)),
    )


@lru_cache(maxsize=2**16)
def plain_text(tokenizer: PreTrainedTokenizerBase, labels: tuple[int, ...]) -> str:
    """Return the text of a word or symbol, without spaces around it; kept, since words come again and tokenizers are slow."""
    return labels_to_text(labels, tokenizer).strip()


def split_words(tokens: Sequence[Token], tokenizer: PreTrainedTokenizerBase) -> list[TokenSpan]:
    """Group tokens into words.

    Args:
        tokens: Of one hypothesis, in order, without blanks.
        tokenizer: That of the model.

    Returns:
        The words in order; separators belong to none.
    """
    where, ids = boundaries(tokenizer), [token.id for token in tokens]
    spans, first = [], None
    for place, label in enumerate([*ids, None]):
        ends = label is None or where.none or label in where.separators or label in where.starts
        if ends and first is not None:
            if text := plain_text(tokenizer, tuple(ids[first:place])):
                spans.append(TokenSpan(text, first, place))
            first = None
        if label is not None and label not in where.separators and first is None:
            first = place
    return spans


def spell(targets: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...] | None]:
    """Return the label ids of words or targets, None for one that the tokenizer cannot spell or that is empty."""
    labels = encode_targets(tokenizer, targets)
    unknown = {tokenizer.unk_token_id, tokenizer.pad_token_id}
    rows = [tuple(labels.ids[start:end].tolist()) for start, end in pairwise(labels.offsets)]
    rows = [row if row and not unknown.intersection(row) else None for row in rows]
    if stored_record(tokenizer).get("unit") in UNITS:
        return rows
    # another tokenizer may leave out in silence what it does not know
    plain = lambda text: text.replace(" ", "").replace(PIECE_START, "")
    told = [row and plain(labels_to_text(row, tokenizer)) for row in rows]
    return [row if row and text == plain(target) else None for row, text, target in zip(rows, told, targets, strict=True)]


def lacking_symbols(targets: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the symbols of targets that the tokenizer lacks, the most frequent first; for pieces, the characters."""
    unit = stored_record(tokenizer).get("unit")
    if unit not in UNITS:
        pieces = "sentencepiece" if boundaries(tokenizer).starts else "character"
        unit = "phoneme" if isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer) else pieces
    return [symbol for symbol, _ in missing_symbols(targets, tokenizer, unit).most_common() if symbol not in SEPARATORS]
