"""Hypothesis -> text, words and symbols with seconds and confidence."""

from collections.abc import Sequence
from itertools import repeat

from transformers import PreTrainedTokenizerBase, Wav2Vec2PhonemeCTCTokenizer

from hfasr.decoding.confidence import Confidence, word_confidences
from hfasr.decoding.greedy import labels_to_text
from hfasr.decoding.hypothesis import Hypothesis
from hfasr.decoding.words import boundaries, plain_text, split_words
from hfasr.inference.transcript import Reading, Transcript, Unit
from hfasr.models.frames import FrameGrid


def as_transcript(
    hypotheses: Sequence[Hypothesis],
    tokenizer: PreTrainedTokenizerBase,
    grid: FrameGrid,
    *,
    path: str | None,
    duration: float,
    aggregate: str = Confidence.aggregate,
) -> Transcript:
    """Make a transcript of what a decoder found.

    Args:
        hypotheses: The best first; text, words and symbols are its.
        tokenizer: That of the model.
        grid: Where the frames are.
        path: Of the recording, None for bytes and arrays.
        duration: Its seconds; nothing begins or ends after it.
        aggregate: How the confidences of a word's symbols are joined, `mean`, `min` or `product`.
    """
    best, between = hypotheses[0], boundaries(tokenizer)
    starts = [min(grid.seconds(token.start_frame), duration) for token in best.tokens]
    ends = [min(grid.seconds(token.end_frame), duration) for token in best.tokens]
    symbols = words = tuple(
        Unit(text, start, end, confidence)
        for token, start, end, confidence in zip(best.tokens, starts, ends, best.confidences or repeat(None), strict=False)
        if token.id not in between.separators and (text := plain_text(tokenizer, (token.id,)))
    )
    if best.words is not None or not between.none:
        spans = split_words(best.tokens, tokenizer) if best.words is None else best.words
        words = tuple(
            Unit(span.text, starts[span.first], ends[span.last - 1], confidence)
            for span, confidence in zip(spans, word_confidences(best, spans, aggregate), strict=True)
        )
    readings = tuple(Reading(_text(each, tokenizer), each.score) for each in hypotheses) if len(hypotheses) > 1 else ()
    return Transcript(readings[0].text if readings else _text(best, tokenizer), path, duration, None, words, symbols, readings)


def symbols_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what a model's symbols are: "phonemes", "pieces" (of sentencepiece) or "characters"."""
    if isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer):
        return "phonemes"
    return "pieces" if boundaries(tokenizer).starts else "characters"


def _text(hypothesis: Hypothesis, tokenizer: PreTrainedTokenizerBase) -> str:
    if hypothesis.text is not None:
        return hypothesis.text
    return labels_to_text([token.id for token in hypothesis.tokens], tokenizer)
