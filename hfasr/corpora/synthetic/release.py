"""The embedded corpora: sentences of the project's own spoken by espeak-ng, laid out as a release of a real corpus.

They are synthetic: good for tests, for trying out a recipe without data, and for comparing code with code; a model trained
on one does not understand people. A language is one row of `LANGUAGES` in plan.py.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import shutil
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import filelock

from hfasr import espeak
from hfasr.cache import cache_folder
from hfasr.corpora.synthetic.layouts import Layout, Utterance
from hfasr.corpora.synthetic.plan import LANGUAGES, Language, make_plan

if TYPE_CHECKING:
    from datasets import DatasetDict

_log = logging.getLogger("hfasr")

# Goes up when the same plan would sound different; a change of words, voices or numbers is seen by itself.
_VERSION = 1


def embedded(
    language: str = "ky",
    *,
    seed: int = 0,
    utterances: Mapping[str, int] | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Return the folder of an embedded corpus, made on the first call and found again afterwards.

    Kyrgyz, Kazakh and English read as any Common Voice release does; `validated` holds train, dev and test together. Mandarin
    reads as AISHELL-2 with its evaluation set. Sentences and voices of one split do not occur in another.

    Args:
        language: "ky", "kk", "en" or "zh"
        seed: chooses sentences, voices, rooms and noise; equal seeds give equal tables, and on one machine equal bytes
        utterances: how many in `train`, `dev`, `test` and, but for Mandarin, `other`, instead of the usual; a split left out is empty
        cache_dir: where to keep it instead of `hfasr.cache.cache_folder()`

    Returns:
        The folder to give to `corpora.common_voice`, such as `…/cv-corpus-embedded-1-0f3a…/ky`, or to `corpora.aishell2`, such as
        `…/aishell2-embedded-1-0f3a…`.

    Raises:
        ValueError: for a language without an embedded corpus, or a split or count that cannot be.
    """
    row = _row(language)
    counts = dict(row.utterances if utterances is None else utterances)
    for split, count in counts.items():
        if split not in row.layout.splits or count < 0:
            raise ValueError(f"utterances counts clips of {', '.join(row.layout.splits)}, got {count} of {split!r}")
    plan = make_plan(language, seed, counts)
    key = hashlib.sha256(repr((espeak.version(), [dataclasses.astuple(one) for one in plan])).encode()).hexdigest()[:12]
    root = pathlib.Path(cache_dir or cache_folder()).expanduser().absolute() / "embedded"
    release = root / f"{row.layout.prefix}-{_VERSION}-{key}"
    if not release.exists():
        root.mkdir(parents=True, exist_ok=True)
        # the operating system frees the lock of a killed process
        with filelock.FileLock(root / f".{release.name}.lock"):
            if not release.exists():
                _make(release, language, row.layout, plan)
    return row.layout.folder(release, language)


def load_embedded(language: str = "ky", /, **options) -> "DatasetDict":
    """Load the embedded corpus of a language by the source that it is laid out for.

    Args:
        language: "ky", "kk", "en" or "zh"
        options: of `corpora.common_voice`, for Mandarin of `corpora.aishell2`

    Returns:
        What that function returns: "train", "validation", "test" and more, for Mandarin "train", and "dev_ios", "test_ios" and
        those of `android` and `mic`.

    Raises:
        ValueError: for a language without an embedded corpus, or an option or split that the source does not have.
    """
    # datasets takes a second to import, which making a corpus need not wait for
    from hfasr.corpora.reading.source import load_corpus

    return load_corpus(embedded(language), source=_row(language).layout.source, **options)


def is_embedded(corpus: str | os.PathLike) -> bool:
    """Tell whether a corpus is an embedded one: the word `embedded`, or a path of one; a copy of it keeps its folder's name."""
    return str(corpus) == "embedded" or any(row.layout.prefix in str(corpus) for row in LANGUAGES.values())


def _row(language: str) -> Language:
    if language not in LANGUAGES:
        raise ValueError(f"there is no embedded corpus of language {language!r}, only of {', '.join(LANGUAGES)}")
    return LANGUAGES[language]


def _make(release: pathlib.Path, language: str, layout: Layout, plan: list[Utterance]) -> None:
    _log.info("making the embedded corpus of %s: %d utterances spoken by espeak-ng, in %s", language, len(plan), release)
    partial = release.with_name(f".{release.name}.partial")
    _remove_stale(partial)
    folder = layout.folder(partial, language)
    folder.mkdir(parents=True)
    by_voice = defaultdict(list)
    for utterance in plan:
        by_voice[utterance.voice].append(utterance)
    # Threads suffice: speaking, Fourier transforms and MP3 coding all run outside the interpreter lock.
    pool = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16))
    try:
        durations = {}
        for made in pool.map(lambda group: _record(group, layout, folder), by_voice.values()):
            durations |= made
    finally:
        pool.shutdown(cancel_futures=True)
    layout.write_tables(folder, language, plan, durations)
    os.rename(partial, release)


def _remove_stale(partial: pathlib.Path) -> None:
    """Remove the folder that a killed making left under this name, whose lock is ours, and under names whose lock is free."""
    shutil.rmtree(partial, ignore_errors=True)
    for other in partial.parent.glob(".*.partial"):
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(other.with_suffix(".lock"), timeout=0):
            shutil.rmtree(other, ignore_errors=True)


def _record(utterances: list[Utterance], layout: Layout, folder: pathlib.Path) -> dict[str, int]:
    """Speak the utterances of one voice and write their clips; return the duration of each in ms."""
    durations = {}
    # an engine of its own for each voice: what it says does not depend on the number of threads
    with espeak.private_engine() as engine:
        for one in utterances:
            speech = engine.speak(one.sentence, one.voice, rate=one.rate, pitch=one.pitch, pitch_range=one.pitch_range, volume=60)
            durations[one.path] = layout.write_clip(folder, one, speech, engine.sampling_rate)
    return durations
