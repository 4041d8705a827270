"""A small builder of rows."""

import pytest

from hfasr.corpora.rows import build_rows


@pytest.fixture(scope="session")
def rows():
    """Return a function from texts, and lists of any other column, to rows; `paths` are those of the audio."""

    def build(*texts: str, paths=None, prefix: str = "u", **columns):
        def record(place: int, text: str) -> dict:
            return {
                "id": f"{prefix}{place}", "audio": {"path": paths[place] if paths else f"/nowhere/{prefix}{place}.wav", "bytes": None},
                "text": text, "duration": 1.0, "speaker": "s", "gender": None, "accent": None, "source": "toy",
            } | {name: values[place] for name, values in columns.items()}  # fmt: skip

        return build_rows([record(place, text) for place, text in enumerate(texts)])

    return build
