"""Fine-tune CTC speech recognisers with Hugging Face Transformers, on phonemes or characters.

Every public name is listed in `_HOMES` and imported on first use, so `import hfasr` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version

__version__ = version("hfasr")

# public name -> the module that holds it; a name that equals its module's last part is the module itself
_HOMES = {
    "corpora": "hfasr.corpora",
    "load_audio": "hfasr.audio",
    "keep_durations": "hfasr.corpora.rows",
    "add_target": "hfasr.corpora.rows",
    "describe": "hfasr.corpora.rows",
    "Normalizer": "hfasr.text.normalize",
    "Phonemizer": "hfasr.text.phonemize",
    "build_tokenizer": "hfasr.text.vocabulary",
    "load_model": "hfasr.models.load",
    "CTCTrainingArguments": "hfasr.training.arguments",
    "CTCTrainer": "hfasr.training.trainer",
    "best_path": "hfasr.decoding.greedy",
    "WER": "hfasr.evaluation.evaluate_metrics",
    "CER": "hfasr.evaluation.evaluate_metrics",
    "PER": "hfasr.evaluation.evaluate_metrics",
    "PFER": "hfasr.evaluation.evaluate_metrics",
    "score": "hfasr.evaluation.metrics",
    "write_report": "hfasr.evaluation.report",
    "write_card": "hfasr.evaluation.card",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'hfasr' has no attribute {name!r}; public names are {', '.join(__all__)}")
    module = import_module(_HOMES[name])
    value = module if name == _HOMES[name].rpartition(".")[2] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
