"""Fine-tune CTC speech recognisers with Hugging Face Transformers, on phonemes or characters.

Every public name is listed in `_HOMES` and imported on first use, so `import hfasr` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version

__version__ = version("hfasr")

# public name -> the module that holds it; `corpora` is the module itself
_HOMES = {
    "corpora": "hfasr.corpora",
    "load_audio": "hfasr.audio",
    "keep_durations": "hfasr.corpora.filters",
    "keep_rows": "hfasr.corpora.filters",
    "check_audio": "hfasr.corpora.check",
    "leaks": "hfasr.corpora.leaks",
    "without_leaks": "hfasr.corpora.leaks",
    "mix": "hfasr.corpora.splits",
    "split_by_speaker": "hfasr.corpora.splits",
    "add_target": "hfasr.corpora.targets",
    "describe": "hfasr.corpora.inspection.summary",
    "inspect": "hfasr.corpora.inspection.summary",
    "write_explorer": "hfasr.corpora.inspection.explorer",
    "prepare": "hfasr.corpora.preparation.prepare",
    "stream_rows": "hfasr.corpora.reading.stream",
    "Normalizer": "hfasr.text.normalize",
    "Phonemizer": "hfasr.text.phonemize",
    "build_tokenizer": "hfasr.text.vocabulary",
    "load_model": "hfasr.models.load",
    "CTCTrainingArguments": "hfasr.training.arguments",
    "CTCTrainer": "hfasr.training.trainer",
    "best_path": "hfasr.decoding.greedy",
    "Confidence": "hfasr.decoding.confidence",
    "GreedyDecoder": "hfasr.decoding.greedy",
    "BeamDecoder": "hfasr.decoding.beam",
    "estimate_ngram": "hfasr.decoding.ngram",
    "write_arpa": "hfasr.decoding.ngram",
    "Transcriber": "hfasr.inference.transcriber",
    "Streamer": "hfasr.inference.long.streaming",
    "Aligner": "hfasr.inference.aligner",
    "align": "hfasr.inference.aligner",
    "WER": "hfasr.evaluation.evaluate_metrics",
    "CER": "hfasr.evaluation.evaluate_metrics",
    "PER": "hfasr.evaluation.evaluate_metrics",
    "PFER": "hfasr.evaluation.evaluate_metrics",
    "score": "hfasr.evaluation.metrics",
    "compare_runs": "hfasr.evaluation.comparison",
    "evaluate_model": "hfasr.inference.evaluate",
    "write_report": "hfasr.evaluation.report",
    "write_card": "hfasr.evaluation.card",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'hfasr' has no attribute {name!r}; public names are {', '.join(__all__)}")
    module = import_module(_HOMES[name])
    value = module if name == "corpora" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
