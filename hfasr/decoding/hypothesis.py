"""What a decoder finds in one utterance."""

from dataclasses import dataclass

from hfasr.decoding.greedy import Token


@dataclass(frozen=True)
class Hypothesis:
    """One reading of an utterance."""

    tokens: tuple[Token, ...]
    """In order, without blanks; ids of the tokenizer."""
    score: float
    """Natural logarithm: of the path's probability for the best path, of the sum that the beam search ranks by else."""
    confidences: tuple[float, ...] = ()
    """Of each token, from 0 to 1; empty where they were not asked for."""
