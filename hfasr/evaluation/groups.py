"""Utterances -> the groups whose error rates are told apart: by duration, gender, accent, source and speaker.

Letters in shapes: N utterances.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

_EDGES_SECONDS = (0, 2, 4, 6, 8, 10, 15, 20, 30, float("inf"))
_COLUMNS = ("gender", "accent", "source", "speaker")


def known_seconds(utterance: Mapping) -> float:
    """Its `duration` in seconds; 0.0 where that is missing, None or NaN, as corpora mark an unknown one."""
    duration = utterance.get("duration")
    return float(duration) if duration is not None and duration == duration else 0.0


def short_name(group: str) -> str:
    """Shorten a group's name: Common Voice names speakers by 128 hexadecimal digits, of which twelve tell them apart."""
    return group if len(group) <= 24 else f"{group[:12]}…"


def group_places(utterances: Sequence[Mapping]) -> dict[str, dict[str, np.ndarray]]:
    """Tell which utterances belong together.

    Args:
        utterances: N rows with, as far as known, `duration` in seconds, `gender`, `accent`, `source` and `speaker`.

    Returns:
        For "duration" and each of these columns the places, int64, of the utterances of each group, by its name: durations from short
        to long, the others in order of appearance. An utterance that lacks a value is in no group of that column; a column that puts
        all in one group is left out.
    """
    seconds = np.array([known_seconds(utterance) for utterance in utterances])
    # an edge belongs to the group above it
    bins = np.digitize(seconds, _EDGES_SECONDS) - 1
    bins[seconds <= 0] = -1
    names = [f"{low} to {high} s" if high < float("inf") else f"{low} s and more" for low, high in pairwise(_EDGES_SECONDS)]
    found = {"duration": {name: np.flatnonzero(bins == place) for place, name in enumerate(names)}}
    for column in _COLUMNS:
        places: dict[str, list[int]] = {}
        for place, utterance in enumerate(utterances):
            if value := utterance.get(column):
                places.setdefault(str(value), []).append(place)
        found[column] = {name: np.array(group) for name, group in places.items()}
    found = {column: {name: places for name, places in groups.items() if len(places)} for column, groups in found.items()}
    return {column: groups for column, groups in found.items() if groups and max(map(len, groups.values())) < len(utterances)}
