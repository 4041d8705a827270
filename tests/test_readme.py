"""What the README says runs; test_char_recipes.py runs its commands for other languages."""

import shlex

import pytest
from recipe_runs import REPOSITORY, load_recipe
from stand_ins import fenced, lay_out, run_lines
from transformers import UniSpeechConfig

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer

README = (REPOSITORY / "README.md").read_text("utf-8")

# normalised as the published model; wider than the 64 features that the recipe masks in one span
TINY = UniSpeechConfig(
    hidden_size=72, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(8,) * 7, num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
)  # fmt: skip


def blocks(language: str) -> list[str]:
    return fenced(README, language)


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
    model, processor = load_model(TINY, build_tokenizer(targets))
    model.save_pretrained(tmp_path / "pretrained")
    processor.save_pretrained(tmp_path / "pretrained")
    return {
        "cv-corpus-25.0/ky": toy_release, "cv-corpus-25.0-ky.tar.gz": toy_release, "unispeech_ky/": lists,
        "microsoft/unispeech-large-multi-lingual-1500h-cv": tmp_path / "pretrained",
    }  # fmt: skip


def test_the_commands_for_own_data(own_data, verb, tmp_path, monkeypatch):
    from hfasr.training.run import run_recipe

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(REPOSITORY / "recipes")
    phoneme, char = load_recipe("ky_phoneme"), load_recipe("ky_char")
    monkeypatch.setattr(phoneme, "UNISPEECH", str(own_data["microsoft/unispeech-large-multi-lingual-1500h-cv"]))
    commands = [shlex.split(line) for line in blocks("bash")[1].splitlines() if not line.startswith("#")]
    assert [words[1] if words[0] == "hfasr" else "launch" for words in commands] == ["inspect", *["launch"] * 4, "prepare", "launch"]
    quick = ["--max_steps", "2", "--eval_steps", "2", "--save_steps", "2", "--use_cpu", "--report_to", "none", "--disable_tqdm", "true",
             "--gradient_accumulation_steps", "1", "--dataloader_num_workers", "0", "--cpu_threads", "1"]  # fmt: skip
    for number, command in enumerate(commands):
        words = [str(own_data.get(word, word)) for word in command]
        if words[0] == "hfasr":
            assert verb(*words[1:])[0] == 0
            continue
        (script,) = [word for word in words if word.startswith("recipes/")]
        flags = words[words.index(script) + 1 :]
        # the command that resumes goes on with the run of the pretrained model, here with its corpus
        run, corpus = (number, []) if "--corpus" in flags else (1, ["--corpus", str(own_data["cv-corpus-25.0/ky"])])
        recipe, recipe_class = (phoneme, phoneme.KyPhoneme) if "phoneme" in script else (char, char.KyChar)
        run_recipe(recipe.main, recipe_class, recipe.presets, [*flags, *corpus, *quick, "--output_dir", str(tmp_path / f"run{run}")])
        assert (tmp_path / f"run{run}" / "README.md").is_file()
    assert (tmp_path / "ky.html").is_file()


def test_the_commands_for_a_trained_model(toy_release, verb, tmp_path, monkeypatch):
    pytest.importorskip("flashlight", reason="flashlight-text (extra lm) is not installed")
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, toy_release)
    assert run_lines(blocks("bash")[3], verb, monkeypatch) == []
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"transcripts.jsonl", "a.txt", "a.srt", "a.vtt", "a.TextGrid", "a.ctm", "day"} <= made
    assert (tmp_path / "speech.TextGrid").is_file()
    assert (tmp_path / "runs" / "beam" / "report.html").is_file()
    assert (tmp_path / "runs" / "best_path-against-beam" / "comparison.json").is_file()
