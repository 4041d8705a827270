"""What the README says runs."""

import json
import re
import shlex
import shutil
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
        if code.startswith(("hfasr.Phonemizer", "hfasr.Normalizer", "hfasr.score")):
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


def run_verb(words: list[str], monkeypatch, capsys) -> str:
    """Run a command of `hfasr`; return what it printed."""
    from hfasr import cli

    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return printed.out


def test_the_commands_for_own_data(own_data, tmp_path, monkeypatch, capsys):
    from test_recipe import REPOSITORY, load_recipe

    from hfasr.training.run import run_recipe

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(REPOSITORY / "recipes")
    phoneme, char = load_recipe("ky_phoneme"), load_recipe("ky_char")
    monkeypatch.setattr(phoneme, "UNISPEECH", str(own_data["microsoft/unispeech-large-multi-lingual-1500h-cv"]))
    commands = [shlex.split(line) for line in blocks("bash")[1].splitlines() if not line.startswith("#")]
    assert [words[1] if words[0] == "hfasr" else "launch" for words in commands] == ["inspect", *["launch"] * 4, "prepare", "launch"]
    quick = ["--max_steps", "2", "--eval_steps", "2", "--save_steps", "2", "--use_cpu", "--report_to", "none", "--disable_tqdm", "true",
             "--gradient_accumulation_steps", "1", "--dataloader_num_workers", "0"]  # fmt: skip
    for number, command in enumerate(commands):
        words = [str(own_data.get(word, word)) for word in command]
        if words[0] == "hfasr":
            run_verb(words, monkeypatch, capsys)
            continue
        (script,) = [word for word in words if word.startswith("recipes/")]
        flags = words[words.index(script) + 1 :]
        # the command that resumes goes on with the run of the pretrained model, here with its corpus
        run, corpus = (number, []) if "--corpus" in flags else (1, ["--corpus", str(own_data["cv-corpus-25.0/ky"])])
        recipe, recipe_class = (phoneme, phoneme.KyPhoneme) if "phoneme" in script else (char, char.KyChar)
        run_recipe(recipe.main, recipe_class, recipe.presets, [*flags, *corpus, *quick, "--output_dir", str(tmp_path / f"run{run}")])
        assert (tmp_path / f"run{run}" / "README.md").is_file()
    assert (tmp_path / "ky.html").is_file()


def test_the_commands_for_other_languages(tmp_path, monkeypatch, capsys):
    from test_char_recipes import TINY, run
    from test_recipe import REPOSITORY

    monkeypatch.syspath_prepend(REPOSITORY / "tests" / "corpora" / "sources")
    monkeypatch.syspath_prepend(REPOSITORY / "tests" / "models")
    from layouts import build_aishell2_eval, build_aishell2_train, build_ksc2, build_librispeech, clip
    from nemo_files import write_nemo

    from hfasr.models.quartznet import QuartzNetConfig

    monkeypatch.chdir(tmp_path)
    build_aishell2_train(tmp_path / "zh")
    build_aishell2_eval(tmp_path / "zh")
    shutil.copytree(build_librispeech(tmp_path) / "test-other", tmp_path / "LibriSpeech" / "test-clean")
    build_ksc2(tmp_path)
    clip(tmp_path / "sample_kz.wav", 4)
    for name in ("stt_en_quartznet15x5.nemo", "stt_kz_quartznet15x5.nemo"):
        write_nemo(tmp_path / name, QuartzNetConfig(**json.loads(TINY)))
    commands = [shlex.split(line) for line in blocks("bash")[2].splitlines() if not line.startswith("#")]
    assert [words[1 if words[0] == "hfasr" else 2] for words in commands] == [
        "recipes/kk_char.py", "recipes/zh_char.py", "recipes/en_char.py", "import-nemo", "transcribe",
    ]  # fmt: skip
    for words in commands:
        if words[0] == "hfasr":
            printed = run_verb(words, monkeypatch, capsys)
            continue
        flags = ["zh" if word == "AISHELL-2" else word for word in words[3:]]
        flags += [] if "--base_model" in flags else ["--model_config", TINY]
        run(Path(words[2]).stem, tmp_path / Path(words[2]).stem, *flags, "--min_seconds", "0.2")
        assert (tmp_path / Path(words[2]).stem / "README.md").is_file()
    assert printed.endswith("\n")
    assert (tmp_path / "kk-quartznet" / "model.safetensors").is_file()
