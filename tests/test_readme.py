"""What the README says runs."""

import re
import shlex
from pathlib import Path

import pytest

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_the_first_block_is_what_ci_runs():
    lines = blocks("bash")[0].splitlines()
    assert len(lines) == 2
    assert lines[0] == "pip install -e . && accelerate launch recipes/ky_phoneme.py"
    assert lines[1].endswith("&& pytest")


def test_the_python_example(toy_release, monkeypatch, capsys):
    import hfasr

    monkeypatch.setattr(hfasr.corpora, "embedded", lambda language: toy_release)
    namespace = {}
    for line in blocks("python")[0].splitlines():
        code, _, promised = line.partition("#")
        if code.startswith(("hfasr.Phonemizer", "hfasr.score")):
            assert repr(eval(code, namespace)) == promised.strip()
        else:
            exec(code, namespace)


@pytest.fixture
def own_data(toy_release, tmp_path):
    """Return what stands for the names in the README: a corpus, lists of clips, a pretrained model."""
    corpus = plain(common_voice(toy_release, splits=["train", "validation", "test"]))
    lists = tmp_path / "unispeech_ky"
    lists.mkdir()
    for name, split in (("trainSeqs", "train"), ("valSeqs", "validation"), ("testSeqs", "test")):
        (lists / f"{name}.text").write_text("".join(f"{row['id']}\t{row['text']}\n" for row in corpus[split]))
    targets = add_target(corpus, Phonemizer("ky"))["train"]["target"]
    model, processor = load_model("unispeech-tiny", build_tokenizer(targets))
    model.save_pretrained(tmp_path / "pretrained")
    processor.save_pretrained(tmp_path / "pretrained")
    return {
        "cv-corpus-25.0/ky": toy_release, "cv-corpus-25.0-ky.tar.gz": toy_release, "unispeech_ky/": lists,
        "microsoft/unispeech-large-multi-lingual-1500h-cv": tmp_path / "pretrained",
    }  # fmt: skip


def test_the_commands_for_own_data(own_data, tmp_path, monkeypatch):
    from test_recipe import load_recipe

    from hfasr.training.run import run_recipe

    recipe = load_recipe("ky_phoneme")
    monkeypatch.setattr(recipe, "UNISPEECH", str(own_data["microsoft/unispeech-large-multi-lingual-1500h-cv"]))
    monkeypatch.setattr(recipe, "BUILT_IN", {})
    commands = [line for line in blocks("bash")[1].splitlines() if not line.startswith("#")]
    assert len(commands) == 3
    quick = ["--max_steps", "2", "--eval_steps", "1", "--save_steps", "1", "--use_cpu", "--report_to", "none", "--disable_tqdm", "true",
             "--gradient_accumulation_steps", "1", "--dataloader_num_workers", "0"]  # fmt: skip
    for number, command in enumerate(commands):
        words = [str(own_data.get(word, word)) for word in shlex.split(command)]
        flags = words[words.index("recipes/ky_phoneme.py") + 1 :]
        # the third goes on with a run, here that of the first
        corpus = [] if "--corpus" in flags else ["--corpus", str(own_data["cv-corpus-25.0/ky"])]
        run_recipe(
            recipe.main, recipe.KyPhoneme, recipe.presets, [*flags, *corpus, *quick, "--output_dir", str(tmp_path / f"run{number % 2}")]
        )
        assert (tmp_path / f"run{number % 2}" / "README.md").is_file()
