"""WER, CER, PER and PFER with the interface of the `evaluate` library, without its downloads."""

import evaluate
from datasets import Features, Value

from hfasr.evaluation.metrics import phonetic_score, score

_ARGUMENTS = """
Args:
    predictions: list of recognised texts.
    references: list of true texts, as many.
Returns:
    The rate under its name, and the counts behind it.
"""


class _ErrorRate(evaluate.Metric):
    """A rate over pairs of strings, collected in memory unless several processes share the metric."""

    _description: str

    def __init__(self, **kwargs):
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self._description,
            citation="",
            inputs_description=_ARGUMENTS,
            features=Features({"predictions": Value("string"), "references": Value("string")}),
        )


class _EditRate(_ErrorRate):
    _unit: str

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        found = score(references, predictions, self._unit)
        counts = {name: getattr(found, name) for name in ("hits", "substitutions", "deletions", "insertions")}
        return {type(self).__name__.lower(): found.rate} | counts


class WER(_EditRate):
    """Word error rate.

    >>> WER().compute(predictions=["ал келди"], references=["ал кетти"])
    {'wer': 0.5, 'hits': 1, 'substitutions': 1, 'deletions': 0, 'insertions': 0}
    """

    _unit = "word"
    _description = "Word error rate: substituted, deleted and inserted words over the words of the references."


class CER(_EditRate):
    """Character error rate over Unicode code points."""

    _unit = "character"
    _description = "Character error rate: substituted, deleted and inserted code points over those of the references."


class PER(_EditRate):
    """Phoneme error rate; phonemes are split by spaces, word bars are not counted."""

    _unit = "phoneme"
    _description = "Phoneme error rate: substituted, deleted and inserted phonemes over those of the references, word bars left out."


class PFER(_ErrorRate):
    """Phonetic feature error rate; see `hfasr.evaluation.metrics.phonetic_score`."""

    _description = "Phonetic feature error rate: the phoneme error rate with a substitution weighed by the features that differ."

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        found = phonetic_score(references, predictions)
        return {"pfer": found.rate, "errors": found.errors, "unknown": list(found.unknown)}
