"""Transcript: what was said in one recording, and when."""

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A word, character or phoneme in a recording."""

    text: str
    start: float
    """Seconds from the beginning of the recording."""
    end: float
    confidence: float | None = None
    """From 0 to 1; None where it is not known."""


@dataclass(frozen=True)
class Reading:
    """One of several readings of a recording."""

    text: str
    score: float
    """Natural logarithm of what the decoder ranks by."""


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording."""

    text: str
    """As the tokenizer decodes it; "" where nothing was recognised or the audio cannot be read."""
    path: str | None
    """The file; None for bytes and arrays."""
    duration: float
    """Seconds; 0 where the audio cannot be read."""
    error: str | None = None
    """Why the audio cannot be read, with its name; None for a recording that was transcribed."""
    words: tuple[Unit, ...] = ()
    """In order, not overlapping. Without word boundaries in the model's vocabulary, its symbols."""
    symbols: tuple[Unit, ...] = ()
    """The model's symbols but for word boundaries: characters, phonemes or sentencepieces."""
    readings: tuple[Reading, ...] = ()
    """The n best, best first, where more than one was asked for."""


def one_line(text: str) -> str:
    """Return text without line breaks and other control characters, which a model's symbols may hold: they would end a line, a cue or
    an interval, or move a terminal's cursor."""
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter for letter in text)
