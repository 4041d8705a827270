"""The recipes that write letters or characters: the README's commands on toy corpora, and the numbers that flags lead to."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import recipe_runs
import yaml
from recipe_runs import REPOSITORY, parsed
from test_readme import blocks
from transformers import AutoProcessor

import hfasr.models.nemo
from hfasr.corpora import embedded
from hfasr.models.quartznet import QuartzNetConfig
from hfasr.training.fine_tune import known_settings
from hfasr.training.recipe import open_corpus

sys.path += [str(REPOSITORY / "tests" / "models"), str(REPOSITORY / "tests" / "corpora" / "sources")]
from layouts import build_aishell2_eval, build_aishell2_train, build_common_voice, build_ksc2, build_librispeech, clip, write
from nemo_files import write_nemo

# two updates of a tiny model
QUICK = [
    "--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "--decode_check", "false", "--max_steps", "2", "--eval_strategy", "no",
    "--save_strategy", "no", "--load_best_model_at_end", "false", "--gradient_accumulation_steps", "1", "--dataloader_num_workers", "0",
    "--min_seconds", "0.2", "--cpu_threads", "1",
]  # fmt: skip
TINY = {"blocks": [{"filters": 16, "kernel": 5, "stride": 2}, {"filters": 16, "kernel": 5}]}
COMMANDS = [shlex.split(line) for line in blocks("bash")[2].splitlines() if not line.startswith("#")]
MANDARIN_SPLITS = [f"{kind}_{channel}" for kind in ("dev", "test") for channel in ("ios", "android", "mic")]


def test_the_commands():
    assert [words[1 if words[0] == "hfasr" else 2] for words in COMMANDS] == [
        "recipes/kk_char.py", "recipes/zh_char.py", "recipes/en_char.py", "import-nemo", "transcribe",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a folder where the README's commands that train were given: the runs by recipe, the corpora and the archives."""
    folder = tmp_path_factory.mktemp("runs")
    mandarin = embedded("zh", utterances={"train": 8, "dev": 2, "test": 2})
    build_librispeech(folder)
    (folder / "LibriSpeech" / "test-other").rename(folder / "LibriSpeech" / "test-clean")
    build_librispeech(folder)
    kazakh = build_ksc2(folder) / "Train" / "radio"
    clip(kazakh / "letters.flac", 8)
    write(kazakh / "letters.txt", "әдемі ғажап қала, таң ұзақ")
    clip(folder / "sample_kz.wav", 4)
    for name in ("stt_en_quartznet15x5.nemo", "stt_kz_quartznet15x5.nemo"):
        write_nemo(folder / name, QuartzNetConfig(**TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in COMMANDS:
            if words[0] != "hfasr":
                flags = [mandarin if word == "AISHELL-2" else word for word in words[3:]]
                flags += [] if "--base_model" in flags else ["--model_config", json.dumps(TINY)]
                name = Path(words[2]).stem
                recipe_runs.run(name, *QUICK, "--output_dir", folder / name, *flags)
    return folder


def read(run: Path, name: str) -> dict:
    return json.loads((run / f"{name}.json").read_text())


def test_mandarin_is_evaluated_on_six_splits(finished):
    run = finished / "zh_char"
    assert [name for name, values in read(run, "results").items() if isinstance(values, dict) and "cer" in values] == MANDARIN_SPLITS
    card = yaml.safe_load((run / "README.md").read_text().split("---\n")[1])
    (model,) = card["model-index"]
    found = [(result["dataset"]["split"], metric["type"]) for result in model["results"] for metric in result["metrics"]]
    assert found == [(split, "cer") for split in MANDARIN_SPLITS]
    assert read(run, "recipe")["synthetic"] is True
    assert list(read(run, "recipe")["corpus"]["splits"]) == ["train", *MANDARIN_SPLITS]
    characters = {character for line in (run / "predictions.jsonl").read_text().splitlines() for character in json.loads(line)["reference"]}
    assert all("\u4e00" <= character <= "\u9fff" for character in characters)


def test_english_has_the_29_outputs_of_the_public_model(finished):
    run = finished / "en_char"
    assert read(run, "config")["vocab_size"] == 29
    tokenizer = AutoProcessor.from_pretrained(run, trust_remote_code=True).tokenizer
    assert tokenizer.convert_ids_to_tokens(range(29)) == ["<pad>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    assert list(read(run, "results"))[:3] == ["dev_clean", "test_clean", "test_other"]
    assert (run / "README.md").is_file()


def test_kazakh_starts_from_an_english_nemo_archive(finished):
    run = finished / "kk_char"
    assert read(run, "recipe")["base_model"] == "stt_en_quartznet15x5.nemo"
    config = read(run, "config")
    assert config["kept_symbols"] == ["|"]
    assert {letter: config["paired_symbols"][letter] for letter in "аәғқңөұ"} == dict(zip("аәғқңөұ", "aagknou", strict=True))
    assert config["rect_masks"] == 5
    assert "stt_en_quartznet15x5.nemo" in (run / "README.md").read_text()
    assert read(run, "results")["test"]["cer"] > 0


def test_a_nemo_checkpoint_is_imported_and_transcribes(finished, verb, monkeypatch):
    monkeypatch.chdir(finished)
    for words in COMMANDS:
        if words[0] == "hfasr":
            status, printed, told = verb(*words[1:])
            assert status == 0, told
    assert printed.endswith("\n")
    assert (finished / "kk-quartznet" / "model.safetensors").is_file()


def test_an_archive_is_read_for_its_configuration_once(tmp_path, monkeypatch):
    """A packed one is unpacked whole each time."""
    calls, read_nemo_config = [], hfasr.models.nemo.read_nemo_config
    monkeypatch.setattr(hfasr.models.nemo, "read_nemo_config", lambda path: calls.append(path) or read_nemo_config(path))
    write_nemo(tmp_path / "english.nemo", QuartzNetConfig(**TINY))
    archive = str(tmp_path / "english.nemo")
    assert parsed("kk_char", "--base_model", archive, "--corpus", "ISSAI_KSC2").novograd == [0.8, 0.5]
    assert known_settings(archive, {"rect_masks": 5, "mask_time_prob": 0.5}) == {"ctc_zero_infinity": True, "rect_masks": 5}
    assert calls == [archive]


def refused(capsys, name: str, *flags: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        recipe_runs.run(name, *QUICK, *flags)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_parts_are_those_of_librispeech(tmp_path, capsys):
    parts = ["--output_dir", tmp_path / "run", "--train_parts", "train-clean-100"]
    assert "train_parts is train-clean-100, which only LibriSpeech has" in refused(capsys, "en_char", *parts)
    common_voice = build_common_voice(tmp_path)
    assert "is not LibriSpeech" in refused(capsys, "en_char", *parts, "--corpus", common_voice)
    assert "which only LibriSpeech has" in refused(capsys, "en_char", *parts, "--corpus", common_voice, "--source", "common_voice")


def given_to_fine_tune(name: str, numbers, monkeypatch) -> dict:
    """Return the settings that a recipe calls `fine_tune` with."""
    recipe, given = recipe_runs.load_recipe(name), {}
    monkeypatch.setattr(recipe, "fine_tune", lambda numbers, to_target, **settings: given.update(settings))
    recipe.main(numbers)
    return given


def test_a_release_is_opened_with_its_own_split_names(tmp_path, monkeypatch):
    """AISHELL-2 comes as two folders; what is evaluated during training is not held twice."""
    build_aishell2_train(tmp_path / "zh")
    build_aishell2_eval(tmp_path / "zh")
    mandarin = open_corpus(parsed("zh_char", "--corpus", tmp_path / "zh"), "zh")
    assert list(mandarin) == ["train", *MANDARIN_SPLITS]
    with pytest.raises(ValueError, match="no split 'dev_ios', found train; choose by --validation_split"):
        open_corpus(parsed("zh_char", "--corpus", tmp_path / "zh" / "AISHELL-2"), "zh")
    recipe = parsed("en_char", "--corpus", build_librispeech(tmp_path), "--test_splits", "test_other", "--train_parts", "train-clean-100")
    english = open_corpus(recipe, "en", **given_to_fine_tune("en_char", recipe, monkeypatch)["corpus_options"])
    assert list(english) == ["train", "dev_clean", "test_other"]
    assert set(english["train"]["source"]) == {"train-clean-100"}


def test_numbers_follow_from_what_training_starts_from():
    """NeMo's published ones for its models, from ../shared/facts.md; others for a small model, and lower rates for a trained one."""
    english, mandarin = parsed("en_char", "--corpus", "LibriSpeech"), parsed("zh_char", "--corpus", "AISHELL-2")
    assert (english.novograd, english.learning_rate, english.weight_decay) == ([0.8, 0.5], 0.01, 1e-3)
    assert (mandarin.novograd, mandarin.learning_rate, mandarin.weight_decay) == ([0.8, 0.25], 0.05, 1e-3)
    assert (mandarin.warmup_steps, mandarin.lr_scheduler_type, mandarin.lr_scheduler_kwargs["min_lr"]) == (5000, "cosine_with_min_lr", 1e-5)
    assert (english.validation_split, english.test_splits) == ("dev_clean", ["test_clean", "test_other"])
    assert parsed("en_char").test_splits == ["test"]
    assert parsed("en_char", "--test_splits", "dev").test_splits == ["dev"]
    assert parsed("kk_char").learning_rate == parsed("kk_char", "--base_model", "quartznet-small", "--corpus", "ksc2").learning_rate
    assert parsed("kk_char", "--base_model", "wav2vec2-tiny").tri_stage == [0.1, 0.4, 0.5]


@pytest.mark.parametrize(
    ("name", "start"),
    [("en_char", "quartznet-15x5"), ("en_char", "a/trained"), ("zh_char", "citrinet-1024"), ("kk_char", "quartznet-15x5")],
)
def test_the_embedded_corpus_takes_its_own_numbers(name, start, monkeypatch):
    """A hundred epochs of one update each, as a large corpus wants its batches, are no training on an hour."""
    own, other = parsed(name), parsed(name, "--base_model", start)
    numbers = ("novograd", "learning_rate", "max_batch_seconds", "gradient_accumulation_steps", "warmup_steps", "dataloader_num_workers")
    assert {number: getattr(other, number) for number in numbers} == {number: getattr(own, number) for number in numbers}
    given = given_to_fine_tune(name, other, monkeypatch)
    assert (given["base_model"], given["model_settings"]["time_masks"]) == (start, 3)
    assert given["model_settings"].get("rect_masks", 0) == 0


def test_a_flag_wins_over_the_optimiser_of_the_preset(capsys):
    corpus = ["--corpus", "AISHELL-2"]
    adam = parsed("zh_char", *corpus, "--optim=adamw_torch", "--learning_rate", "1e-3")
    assert (adam.novograd, adam.learning_rate, adam.warmup_steps) == (None, 1e-3, 5000)
    betas = parsed("zh_char", *corpus, "--novograd", "0.95", "0.5")
    assert (betas.novograd, betas.learning_rate) == ([0.95, 0.5], 0.05)
    linear = parsed("zh_char", *corpus, "--lr_scheduler_type", "linear")
    assert (linear.lr_scheduler_type, linear.lr_scheduler_kwargs, linear.learning_rate) == ("linear", None, 0.05)
    stages = parsed("zh_char", *corpus, "--tri_stage", "0.1", "0.4", "0.5")
    assert (stages.lr_scheduler_type, stages.lr_scheduler_kwargs, stages.warmup_steps) == ("linear", None, 0)
    over_adam = parsed("zh_char", "--novograd", "0.8", "0.25", "--learning_rate", "0.02")
    assert (over_adam.novograd, over_adam.learning_rate) == ([0.8, 0.25], 0.02)

    assert "give one of them" in refused(capsys, "zh_char", *corpus, "--optim", "sgd", "--novograd", "0.8", "0.5")
    assert "give --learning_rate too" in refused(capsys, "zh_char", "--novograd", "0.8", "0.5")
    assert "give --learning_rate too" in refused(capsys, "zh_char", *corpus, "--optim", "adamw_torch")
