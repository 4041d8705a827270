"""The recipes that write letters or characters, each as a user runs it, on a toy corpus of its language."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from test_recipe import REPOSITORY, load_recipe
from transformers import AutoProcessor

from hfasr.corpora import embedded
from hfasr.models.quartznet import QuartzNetConfig
from hfasr.training.recipe import open_corpus
from hfasr.training.run import run_recipe

sys.path += [str(REPOSITORY / "tests" / "models"), str(REPOSITORY / "tests" / "corpora" / "sources")]
from layouts import build_aishell2_eval, build_aishell2_train, build_librispeech
from nemo_files import write_nemo

# two updates of a tiny model
QUICK = [
    "--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "--decode_check", "false", "--max_steps", "2", "--eval_strategy", "no",
    "--save_strategy", "no", "--load_best_model_at_end", "false", "--gradient_accumulation_steps", "1", "--dataloader_num_workers", "0",
]  # fmt: skip
TINY = json.dumps({"blocks": [{"filters": 16, "kernel": 5, "stride": 2}, {"filters": 16, "kernel": 5}]})


def run(name: str, folder: Path, *flags: str | Path) -> dict[str, dict]:
    """Run a recipe; return what its JSON files hold, by their names."""
    recipe = load_recipe(name)
    recipe_class = getattr(recipe, name.title().replace("_", ""))
    run_recipe(recipe.main, recipe_class, recipe.presets, [*QUICK, "--output_dir", str(folder), *map(str, flags)])
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def parsed(name: str, *flags: str):
    """Return the numbers that a recipe would run with."""
    recipe, seen = load_recipe(name), []
    recipe_class = getattr(recipe, name.title().replace("_", ""))
    run_recipe(seen.append, recipe_class, recipe.presets, ["--use_cpu", *flags])
    return seen[0]


def test_mandarin_is_evaluated_on_six_splits(tmp_path):
    corpus = embedded("zh", utterances={"train": 8, "dev": 2, "test": 2})
    files = run("zh_char", tmp_path / "zh", "--corpus", corpus, "--base_model", "citrinet-small", "--model_config", TINY)
    splits = [f"{kind}_{channel}" for kind in ("dev", "test") for channel in ("ios", "android", "mic")]
    assert [name for name, values in files["results"].items() if isinstance(values, dict)] == splits
    card = yaml.safe_load((tmp_path / "zh" / "README.md").read_text().split("---\n")[1])
    (model,) = card["model-index"]
    found = [(result["dataset"]["split"], metric["type"]) for result in model["results"] for metric in result["metrics"]]
    assert found == [(split, "cer") for split in splits]
    assert files["recipe"]["synthetic"] is True
    assert list(files["recipe"]["corpus"]["splits"]) == ["train", *splits]
    characters = {row for line in (tmp_path / "zh" / "predictions.jsonl").read_text().splitlines() for row in json.loads(line)["reference"]}
    assert all("\u4e00" <= character <= "\u9fff" for character in characters)


def test_english_has_the_29_outputs_of_the_public_model(tmp_path):
    corpus = embedded("en", utterances={"train": 8, "dev": 2, "test": 2})
    splits = ["--validation_split", "validation", "--test_splits", "test"]
    files = run("en_char", tmp_path / "en", "--corpus", corpus, "--base_model", "quartznet-small", "--model_config", TINY, *splits)
    assert files["config"]["vocab_size"] == 29
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "en", trust_remote_code=True).tokenizer
    assert tokenizer.convert_ids_to_tokens(range(29)) == ["<pad>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    assert list(files["results"])[:2] == ["validation", "test"]


def test_kazakh_starts_from_an_english_nemo_archive(tmp_path):
    corpus = embedded("kk", utterances={"train": 8, "dev": 2, "test": 2})
    config = QuartzNetConfig(blocks=[{"filters": 16, "kernel": 5, "stride": 2}, {"filters": 16, "kernel": 5}])
    write_nemo(tmp_path / "english.nemo", config)
    files = run("kk_char", tmp_path / "kk", "--corpus", corpus, "--base_model", tmp_path / "english.nemo")
    assert files["recipe"]["base_model"] == str(tmp_path / "english.nemo")
    assert files["config"]["kept_symbols"] == ["|"]
    pairs = files["config"]["paired_symbols"]
    assert {letter: pairs[letter] for letter in "аәғқңөұ"} == dict(zip("аәғқңөұ", "aagknou", strict=True))
    assert files["config"]["rect_masks"] == 5
    assert "english.nemo" in (tmp_path / "kk" / "README.md").read_text()
    assert files["results"]["test"]["cer"] > 0


def test_a_release_is_opened_with_its_own_split_names(tmp_path):
    """AISHELL-2 comes as two folders; what is evaluated during training is not held twice."""
    build_aishell2_train(tmp_path / "zh")
    build_aishell2_eval(tmp_path / "zh")
    mandarin = open_corpus(parsed("zh_char", "--corpus", str(tmp_path / "zh")), "zh")
    assert list(mandarin) == ["train", "dev_ios", "dev_android", "dev_mic", "test_ios", "test_android", "test_mic"]
    with pytest.raises(ValueError, match="no split 'dev_ios', found train; choose by --validation_split"):
        open_corpus(parsed("zh_char", "--corpus", str(tmp_path / "zh" / "AISHELL-2")), "zh")
    recipe = parsed(
        "en_char", "--corpus", str(build_librispeech(tmp_path)), "--validation_split", "dev_clean", "--test_splits", "test_other"
    )
    english = open_corpus(recipe, "en", train=["train-clean-100"])
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
