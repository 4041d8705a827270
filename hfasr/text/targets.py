"""A tokenizer -> the Normalizer or Phonemizer that makes the targets of its model from text."""

import os

from transformers import PreTrainedTokenizerBase, Wav2Vec2PhonemeCTCTokenizer

from hfasr.text.normalize import Normalizer
from hfasr.text.phonemize import WORD_BAR, Phonemizer
from hfasr.text.vocabulary import check_target_record, evaluated_as, stored_record


def is_recorded(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer says how the targets of its model were made, as those trained by hfasr do."""
    return any(name in stored_record(tokenizer) for name in ("voice", "lexicon_sha256", "normalizer"))


def target_maker(
    tokenizer: PreTrainedTokenizerBase,
    *,
    unit: str | None = None,
    language: str | None = None,
    lexicon: str | os.PathLike | None = None,
) -> Normalizer | Phonemizer:
    """Return what turns text into the targets of a model, as its tokenizer records it.

    Args:
        tokenizer: Of the model.
        unit: "phoneme" or "character", for a model that is not hfasr's; None takes phonemes for a
            `Wav2Vec2PhonemeCTCTokenizer`, else characters.
        language: Code of the language, or espeak-ng voice for phonemes, for a model that is not hfasr's. A normalizer of the record is
            replaced by that of this language.
        lexicon: The file of pronunciations that the targets were made with.

    Raises:
        FileNotFoundError: There is no such lexicon or table of a language.
        ValueError: The record and the arguments differ, the lexicon or the language is missing, or espeak-ng is of another version.
    """
    record = stored_record(tokenizer)
    known = record.get("unit") or ("phoneme" if isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer) else "character")
    if unit is not None and "unit" in record and evaluated_as(unit) != evaluated_as(known):
        raise ValueError(f"unit is {unit!r}, but the model was trained on {known}s; leave it out")
    phonemes = evaluated_as(unit or known) == "phoneme"
    if not is_recorded(tokenizer) and language is None:
        what = "espeak-ng voice of its phonemes" if phonemes else "language of its text"
        raise ValueError(f"the model does not say how its targets were made; give the {what}, such as --language ky")
    if not phonemes:
        return Normalizer(language or record["normalizer"], numbers=record.get("numbers"))
    if "lexicon_sha256" in record and lexicon is None:
        raise ValueError("the targets of the model were made with a lexicon; give the same file")
    normalizer = Normalizer(record["normalizer"], numbers=record.get("numbers")) if "normalizer" in record else None
    voice = language or record.get("voice")
    maker = Phonemizer(voice, word_bars=WORD_BAR in tokenizer.get_vocab(), lexicon=lexicon, normalizer=normalizer)
    check_target_record(record, maker.record, same_rows=False)
    if is_recorded(tokenizer) and maker.record["lexicon_sha256"] != record.get("lexicon_sha256"):
        made = "made with another lexicon" if "lexicon_sha256" in record else "made without a lexicon"
        raise ValueError(f"the targets of the model were {made}, {lexicon} would change what its symbols mean")
    return maker
