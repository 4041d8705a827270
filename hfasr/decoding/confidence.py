"""How sure a model is of a frame, a symbol and a word.

Laptev and Ginsburg 2023, "Fast entropy-based methods of word-level confidence estimation for end-to-end automatic speech
recognition" (arXiv 2212.08703): a frame's confidence is how far its distribution over the vocabulary is from the uniform one.

Shapes: B utterances, T frames, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hfasr.decoding.hypothesis import Hypothesis

MEASURES = ("max", "tsallis", "gibbs")
SCALES = ("linear", "exponential")
AGGREGATES = {"mean": np.add, "min": np.minimum, "product": np.multiply}


@dataclass(frozen=True)
class Confidence:
    """How frames are measured, and joined to words; a symbol has the mean of its frames.

    Every measure is 1 for a frame that is sure of one label and 0 for a frame that holds all V equally likely. The defaults told
    right symbols and words from wrong ones best on embedded Kazakh and Kyrgyz (docs/transcribing.md).

    Raises:
        ValueError: A name is unknown, or `alpha` is not positive.
    """

    measure: str = "tsallis"
    """`max`: probability of the best label; `tsallis`, `gibbs`: entropy of the frame."""
    alpha: float = 0.5
    """Power of the probabilities in the entropies, above 0; below 1 it lets unlikely labels count more. 1 makes both Shannon's."""
    scale: str = "linear"
    """Of the entropies: `linear`, 1 - H / H of V equal labels, or `exponential`, exp(-H) stretched to the same range."""
    aggregate: str = "mean"
    """Of a word's symbols: `mean`, `min` or `product`."""

    def __post_init__(self):
        for field, known in (("measure", MEASURES), ("scale", SCALES), ("aggregate", tuple(AGGREGATES))):
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"the {field} of confidence is {value!r}, expected one of {', '.join(known)}")
        if not self.alpha > 0:
            raise ValueError(f"the alpha of confidence is {self.alpha:g}, expected a number above 0, such as 0.33")


def as_confidence(confidence: str | Confidence | None) -> Confidence | None:
    """Take the name of a measure for that measure with its defaults; None stays None."""
    return Confidence(confidence) if isinstance(confidence, str) else confidence


def frame_confidences(log_probs: torch.Tensor, confidence: Confidence) -> torch.Tensor:
    """Measure every frame, on the device of `log_probs`.

    Args:
        log_probs: `(..., V)`.
        confidence: The measure.

    Returns:
        `(...)`, from 0 to 1.
    """
    size, alpha = log_probs.shape[-1], confidence.alpha
    if size == 1:
        return torch.ones_like(log_probs[..., 0])
    if confidence.measure == "max":
        return ((log_probs.amax(-1).exp() * size - 1) / (size - 1)).clamp(0, 1)
    if alpha == 1:
        entropy, largest = torch.special.entr(log_probs.exp()).sum(-1), math.log(size)
    elif confidence.measure == "tsallis":
        entropy = (1 - (alpha * log_probs).exp().sum(-1)) / (alpha - 1)
        largest = (1 - size ** (1 - alpha)) / (alpha - 1)
    else:
        entropy, largest = torch.special.entr((alpha * log_probs).exp()).sum(-1), alpha * size ** (1 - alpha) * math.log(size)
    if confidence.scale == "linear":
        return (1 - entropy / largest).clamp(0, 1)
    lowest = math.exp(-largest)
    return (((-entropy).exp() - lowest) / (1 - lowest)).clamp(0, 1)


def join(values: np.ndarray, starts: Sequence[int], ends: Sequence[int], aggregate: str = "mean") -> list[float]:
    """Join the confidences `(N,)` of frames to those of the symbols that hold them, or of symbols to those of words.

    Args:
        values: In order.
        starts: First value of each group, rising.
        ends: End of each group, exclusive, above its start and not above the next start.
        aggregate: `mean`, `min` or `product`.

    Returns:
        One for each group, from 0 to 1.
    """
    if not len(starts):
        return []
    edges = np.stack([starts, ends], axis=1)
    joined = AGGREGATES[aggregate].reduceat(np.append(values, 0), edges.ravel())[::2]
    return (joined / (edges[:, 1] - edges[:, 0]) if aggregate == "mean" else joined).tolist()


def word_confidences(hypothesis: Hypothesis, spans: Sequence, aggregate: str = Confidence.aggregate) -> list[float | None]:
    """Join the confidences of symbols to those of words.

    Args:
        hypothesis: Of one utterance.
        spans: Its words, from `hfasr.decoding.words.split_words`.
        aggregate: `mean`, `min` or `product` of a word's symbols.

    Returns:
        One for each word, from 0 to 1; None where the hypothesis has no confidences.
    """
    if not hypothesis.confidences:
        return [None] * len(spans)
    return join(np.array(hypothesis.confidences), [span.first for span in spans], [span.last for span in spans], aggregate)
