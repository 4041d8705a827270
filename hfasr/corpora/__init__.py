"""A corpus on disk or on the Hub -> `datasets.DatasetDict` of rows.

Each file of `sources/` loads one format, by a function of its own name: `corpora.ksc2(path)` is `sources/ksc2.py`.
"""

import pkgutil
from importlib import import_module
from pathlib import Path

_SOURCES = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "sources")]))
_HOMES = {
    "embedded": "hfasr.corpora.synthetic.release",
    "is_embedded": "hfasr.corpora.synthetic.release",
    "load_embedded": "hfasr.corpora.synthetic.release",
    "load_corpus": "hfasr.corpora.reading.source",
    "write_manifest": "hfasr.corpora.manifest_writer",
    **{name: f"hfasr.corpora.sources.{name}" for name in _SOURCES},
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'hfasr.corpora' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__():
    return __all__
