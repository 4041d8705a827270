"""What the sentences of every embedded language are drawn with: its words by section, and a speaker who chooses."""

import re
from functools import cache
from importlib.resources import files
from random import Random


@cache
def words_of(language: str) -> dict[str, list[str]]:
    """Words of `<language>.txt` by the `[section]` they stand in; an underscore there is a space."""
    text = files(__package__).joinpath(f"{language}.txt").read_text(encoding="utf-8")
    sections = re.split(r"^\[(\w+)\]$", text, flags=re.MULTILINE)
    return {name: [word.replace("_", " ") for word in words.split()] for name, words in zip(sections[1::2], sections[2::2], strict=True)}


class Speech:
    """Draws what is said.

    Args:
        random: where all choices come from
    """

    def __init__(self, random: Random):
        self.random = random

    def maybe(self, text: str, chance: float = 0.5) -> str:
        """The text, or nothing."""
        return text if self.random.random() < chance else ""
