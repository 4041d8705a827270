"""Each layout is recognised by its own source only, and the wrong source says which one it is."""

import pytest
from layouts import (
    build_aishell,
    build_aishell2_eval,
    build_aishell2_train,
    build_common_voice,
    build_ksc,
    build_ksc2,
    build_librispeech,
    pack,
)

from hfasr import corpora
from hfasr.corpora.reading.source import find_sources, load_corpus, sources
from hfasr.corpora.reading.tree import open_tree

LAYOUTS = {
    "common_voice": (build_common_voice, "common_voice"),
    "ksc2": (build_ksc2, "ksc2"),
    "ksc": (build_ksc, "ksc"),
    "aishell": (build_aishell, "aishell"),
    "aishell2_train": (build_aishell2_train, "aishell2"),
    "aishell2_eval": (build_aishell2_eval, "aishell2"),
    "librispeech": (build_librispeech, "librispeech"),
}
CERTAIN = [source.name for source in sources() if source.order == 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_by_its_own_source_only(layout, tmp_path):
    build, name = LAYOUTS[layout]
    folder = build(tmp_path / "corpora")
    for place in (folder, tmp_path, pack(folder, "corpus.tar"), pack(folder, "corpus.zip")):
        found = [source.name for source in find_sources(open_tree(place))]
        assert found[0] == name
        assert [source for source in found if source in CERTAIN] == [name]
        assert load_corpus(place).keys() == getattr(corpora, name)(place).keys()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_wrong_source_says_which_one_it_is(layout, tmp_path):
    build, own = LAYOUTS[layout]
    folder = build(tmp_path)
    title = next(source.title for source in sources() if source.name == own)
    for name in CERTAIN:
        if name != own:
            with pytest.raises(ValueError) as caught:
                getattr(corpora, name)(folder)
            assert f"It looks like {title}: use corpora.{own}, or --source {own}." in str(caught.value)
            assert "expected" in str(caught.value)
            assert "found" in str(caught.value)


def test_nothing_is_recognised_in_other_folders(tmp_path):
    for name in (
        "Train/cats/1.jpg",
        "Test/cats/2.jpg",
        "Train/notes.txt",
        "iOS/app.swift",
        "dev-clean/readme.txt",
        "Meta/train.csv",
        "wav/train/x",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [source.name for source in find_sources(open_tree(tmp_path)) if source.name in CERTAIN] == []
