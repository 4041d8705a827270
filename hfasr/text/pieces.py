"""Sentencepiece units: learn pieces of words from targets, as a tokenizer that Transformers decodes for CTC."""

import io
import re
import zlib
from collections import Counter

BOUNDARY = "▁"
# sentencepiece writes its own marks with these
RESERVED_CHARACTERS = (BOUNDARY, "▅")
# The learner writes each word out as often as it occurs, at 30 bytes a character; shares say as much as counts.
_MOST_WORDS, _MOST_CHARACTERS = 100_000, 4_000_000
# Sums are taken thread by thread, so that another number would give other last digits.
_THREADS = 4


def learn_pieces(words: Counter[str], vocab_size: int, names: tuple[str, str]) -> bytes:
    """Learn a unigram model (Kudo 2018, arXiv 1804.10959) from counted words; equal counts give an equal model.

    Every character of the words is a piece of its own too. Of more than 100,000 different words the most frequent are taken,
    and of equally frequent ones those that a checksum of the word chooses; counts of more than 4 million characters in all are
    scaled down.

    Args:
        words: How often each word, without whitespace, occurs.
        vocab_size: Number of pieces, with blank and unknown.
        names: Of the blank, id 0, and the unknown piece, id 1.

    Returns:
        The model, as `sentencepiece.SentencePieceProcessor(model_proto=…)` reads it.

    Raises:
        ValueError: The words give fewer pieces, or hold more characters.
    """
    import sentencepiece

    characters = sorted(set().union(*words))
    chosen = sorted(words.items(), key=lambda item: (-item[1], zlib.crc32(item[0].encode()), item[0]))[:_MOST_WORDS]
    scale = min(1.0, _MOST_CHARACTERS / sum(len(word) * count for word, count in chosen))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{max(1, round(count * scale))}" for word, count in chosen),
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=1.0,
            required_chars="".join(characters),
            normalization_rule_name="identity",
            byte_fallback=False,
            max_sentence_length=1 << 20,  # bytes; longer ones would be left out in silence
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece=names[0],
            unk_piece=names[1],
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_reason(str(error), vocab_size, len(characters))) from error
    return model.getvalue()


def piece_tokenizer(model: bytes, **settings):
    """Make the model a `ParakeetTokenizer`, the one of Transformers' fast tokenizers that joins repeats and drops the blank.

    Args:
        model: From `learn_pieces`.
        settings: Passed on to the tokenizer.
    """
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import ParakeetTokenizer

    learned = sentencepiece.SentencePieceProcessor(model_proto=model)
    scores = [(learned.id_to_piece(place), learned.get_score(place)) for place in range(len(learned))]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=1, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(BOUNDARY, prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(BOUNDARY, prepend_scheme="always", split=True)
    return ParakeetTokenizer(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **settings)


def _reason(error: str, vocab_size: int, characters: int) -> str:
    if found := re.search(r"too high.*<= (\d+)", error, re.DOTALL):
        return f"vocab_size {vocab_size} is too high: the targets give at most {found[1]} pieces; lower it, or give more targets"
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return f"vocab_size {vocab_size} is too low: the {characters} characters of the targets need at least {found[1]}"
    return f"sentencepiece could not learn {vocab_size} pieces from the targets: {error}"
