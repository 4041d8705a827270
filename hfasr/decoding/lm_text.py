"""Text files -> lines of words, characters or phonemes, for a language model of them."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hfasr.text.vocabulary import split_target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNITS = ("word", "character", "phoneme")
_CHUNK = 10_000
_MOST_NAMED = 20

logger = logging.getLogger(__name__)


def iter_text(paths: Iterable[str]) -> Iterator[str]:
    """Yield the lines of UTF-8 text files, `-` for standard input, without what ends them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not UTF-8; file and line are named.
    """
    paths = list(paths)
    for path in paths:
        if path != "-" and not Path(path).exists():
            raise FileNotFoundError(f"no such text: {path}; give UTF-8 files of one sentence a line, or - for standard input")
        if Path(path).is_dir():
            raise ValueError(f"{path} is a folder; give UTF-8 files of one sentence a line")
    for path in paths:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115 (standard input is left open)
        try:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    bad = line[error.start : error.start + 1].hex()
                    raise ValueError(f"{path}, line {number}: byte 0x{bad} is not UTF-8; save the file as UTF-8 text") from None
                yield text.rstrip("\r\n")
        finally:
            if path != "-":
                file.close()


def iter_units(
    lines: Iterable[str],
    unit: str = "word",
    *,
    make_target: Callable[[list[str]], list[str]] | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> Iterator[str]:
    """Split sentences into the units of a language model, a space between them.

    Lines without a word are left out, and with a tokenizer those that its symbols cannot spell; how many is logged at the end.

    Args:
        lines: Sentences.
        unit: "word", "character" (with `|` for the space) or "phoneme" (words split by `|`).
        make_target: A `Normalizer` or `Phonemizer`; None takes lines as they are, for phonemes split by spaces.
        tokenizer: Of the model that the language model is for, which decides what its symbols are, such as sentencepieces; not
            for words.

    Yields:
        A line of units.

    Raises:
        ValueError: There is no such unit, or the tokenizer can spell no line.
    """
    if unit not in UNITS:
        raise ValueError(f"there is no unit {unit!r}; give one of {', '.join(UNITS)}")
    spells = None if tokenizer is None or unit == "word" else _Speller(tokenizer)
    rest, empty = iter(lines), 0
    while some := list(islice(rest, _CHUNK)):
        targets = some if make_target is None else make_target(some)
        targets = [" ".join(target.split()) for target in targets]
        empty += targets.count("")
        targets = list(filter(None, targets))
        if spells is not None:
            yield from spells(targets)
        else:
            yield from targets if unit != "character" else (" ".join(split_target(target, unit)) for target in targets)
    if empty:
        logger.info("%d lines are empty, or hold what cannot be normalized; they are left out", empty)
    if spells is not None:
        spells.tell()


class _Speller:
    """Targets -> their symbols; counts those that a tokenizer cannot spell."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        # these import transformers, for which a model of plain words need not wait
        from hfasr.decoding import words
        from hfasr.decoding.language_model import symbol_names

        self._words, self._tokenizer = words, tokenizer
        self._names = symbol_names(tokenizer, max(tokenizer.get_vocab().values()) + 1)
        self._lacking, self._left_out, self._done = Counter(), 0, 0

    def __call__(self, targets: list[str]) -> list[str]:
        rows = self._words.spell(targets, self._tokenizer)
        failed = [target for target, row in zip(targets, rows, strict=True) if row is None]
        self._lacking.update(self._words.lacking_symbols(failed, self._tokenizer))
        self._left_out += len(failed)
        self._done += len(rows) - len(failed)
        return [" ".join(self._names[label] for label in row) for row in rows if row is not None]

    def tell(self) -> None:
        if not self._left_out:
            return
        symbols = " ".join(symbol for symbol, _ in self._lacking.most_common(_MOST_NAMED))
        if not self._done:
            raise ValueError(
                f"all {self._left_out} lines hold symbols that the model lacks: {symbols}; is it text of its language and case?"
            )
        logger.warning("%d lines hold symbols that the model lacks: %s; they are left out", self._left_out, symbols)
