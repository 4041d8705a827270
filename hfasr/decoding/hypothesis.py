"""What a decoder finds in one utterance."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Token:
    """One recognised symbol: its id and the frames it holds, end exclusive."""

    id: int
    start_frame: int
    end_frame: int


@dataclass(frozen=True)
class TokenSpan:
    """A word as the tokens `first` to `last`, end exclusive, of a hypothesis."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class Hypothesis:
    """One reading of an utterance."""

    tokens: tuple[Token, ...]
    """In order, without blanks; ids of the tokenizer."""
    score: float
    """Natural logarithm: of the path's probability for the best path, of the sum that the beam search ranks by else."""
    confidences: tuple[float, ...] = ()
    """Of each token, from 0 to 1; empty where they were not asked for."""
    words: tuple[TokenSpan, ...] | None = None
    """Where a lexicon or a language model of words told them; None where `split_words` finds them in the tokens."""
    text: str | None = None
    """What the words of a pronunciation lexicon say; None where the tokens are the text."""

    def shifted(self, frames: int) -> "Hypothesis":
        """Return the same so many frames later."""
        return replace(self, tokens=tuple(Token(token.id, token.start_frame + frames, token.end_frame + frames) for token in self.tokens))
