"""Tokens of a hypothesis -> its words, with the frames that they hold.

A word ends at the tokenizer's boundary: `|` or a space between characters or phonemes, `▁` in front of a sentencepiece. Where a
vocabulary has no boundary, as that of Chinese characters or of phonemes without word bars, every symbol is a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from hfasr.decoding.greedy import Token, labels_to_text

SEPARATORS = ("|", " ")
PIECE_START = "▁"


@dataclass(frozen=True)
class TokenSpan:
    """A word as the tokens `first` to `last`, end exclusive, of a hypothesis."""

    text: str
    first: int
    last: int


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
            if text := labels_to_text(ids[first:place], tokenizer).strip():
                spans.append(TokenSpan(text, first, place))
            first = None
        if label is not None and label not in where.separators and first is None:
            first = place
    return spans
