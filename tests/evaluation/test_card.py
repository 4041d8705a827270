"""The model card as huggingface_hub reads it, its snippet run in a fresh process, and what it must not say."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard

from hfasr.evaluation.card import public_name, write_card

RESULTS = {
    "validation": {"per": 0.1, "per_ci95": [0.09, 0.11], "pfer": 0.05, "pfer_ci95": [0.04, 0.06], "utterances": 100, "seconds": 300.0},
    "test": {
        "per": 0.1235, "per_ci95": [0.11, 0.13], "pfer": 0.06, "pfer_ci95": [0.05, 0.07], "hits": 900, "substitutions": 60,
        "deletions": 40, "insertions": 23, "reference_length": 1000, "utterances": 400, "seconds": 1800.0,
    },
    "espeak_version": "1.52.0",
    "train_seconds": 140.2,
    "updates": 300,
}  # fmt: skip
RECIPE = {
    "recipe": "ky_phoneme",
    "language": "ky",
    "unit": "phoneme",
    "corpus": {"name": "/home/asel/data/cv-corpus-25.0/ky", "splits": {"train": {"utterances": 500, "hours": 0.99}}},
    "base_model": "microsoft/unispeech-large-multi-lingual-1500h-cv",
    "model_type": "unispeech",
    "parameters": 700_000,
    "synthetic": False,
    "arguments": {
        "learning_rate": 2e-5, "tri_stage": [0.1, 0.4, 0.5], "seed": 42, "fp16": False, "output_dir": "/home/asel/runs/ky",
        "hub_token": "hf_abcdefghijklmnopqrstuvwxyz", "run_name": "asel-test", "lr_scheduler_type": "linear",
    },
    "versions": {"torch": "2.12.1"},
    "git_commit": "0123abc",
    "hardware": "1 process on 2 CPU cores",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "ky_phoneme"
    folder.mkdir()
    _write(folder)
    return folder


def _write(folder, recipe=RECIPE, results=RESULTS):
    (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def test_front_matter_and_model_index_parse(run):
    card = ModelCard.load(write_card(run, repo_id="asel-lab/unispeech-ky-phonemes"))
    data = card.data
    assert (data.language, data.license, data.library_name) == ("ky", "apache-2.0", "transformers")
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert data.base_model == "microsoft/unispeech-large-multi-lingual-1500h-cv"
    assert data.metrics == ["per", "pfer"]
    assert data.datasets == ["common_voice_25.0_ky"]
    assert {"hfasr", "ctc", "unispeech", "phoneme-recognition"} <= set(data.tags)
    assert data.model_name == "unispeech-ky-phonemes"
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in data.eval_results}
    assert found == {("validation", "per"): 10.0, ("validation", "pfer"): 5.0, ("test", "per"): 12.35, ("test", "pfer"): 6.0}
    test_per = next(result for result in data.eval_results if (result.dataset_split, result.metric_type) == ("test", "per"))
    assert test_per.dataset_name == "Common Voice 25.0 (ky)"
    assert test_per.metric_args == {"ci95": [11.0, 13.0]}
    for fact in (
        "12.35",
        "11.00 to 13.00",
        "espeak-ng 1.52.0",
        "0.99",
        "`learning_rate` | 2e-05",
        "`tri_stage` | [0.1, 0.4, 0.5]",
        "0123abc",
        "0.70 M",
    ):
        assert fact in card.text
    assert "lr_scheduler_type" not in card.text


def test_from_scratch_on_the_embedded_corpus(run):
    _write(run, RECIPE | {"base_model": "quartznet-small", "model_type": "quartznet", "synthetic": True, "corpus": {"name": "embedded"}})
    (run / "config.json").write_text('{"auto_map": {"AutoModelForCTC": "quartznet.QuartzNetForCTC"}}')
    card = ModelCard.load(write_card(run))
    assert card.data.base_model is None
    assert card.data.datasets == ["hfasr_embedded_corpus_ky"]
    assert "synthetic" in card.text
    assert "trust_remote_code=True" in card.text


def test_no_private_matter(run):
    text = write_card(run).read_text(encoding="utf-8")
    for secret in ("asel", "/home", "hf_abc", str(run.parent)):
        assert secret not in text
    _write(run, RECIPE | {"base_model": "/home/asel/models/mine", "hardware": "/home/asel/gpu"})
    text = write_card(run).read_text(encoding="utf-8")
    assert "asel" not in text
    assert ModelCard(text).data.base_model is None


@pytest.mark.parametrize(
    ("value", "public"),
    [
        ("~/data/ky", "ky"),
        ("../cv-corpus-21.0-2025-03-14/ky", "cv-corpus-21.0-2025-03-14/ky"),
        ("C:\\Users\\asel\\ky.tar", "ky.tar"),
        ("owner/name", "owner/name"),
        ("linear", "linear"),
    ],
)
def test_paths_are_shortened(value, public):
    assert public_name(value) == public


def test_prose_and_own_fields_are_kept_on_rewriting(run):
    path = write_card(run)
    text = path.read_text(encoding="utf-8").replace("license: apache-2.0", "license: cc-by-4.0\nthumbnail: https://example.org/a.png")
    path.write_text(
        text.replace("\n<!-- hfasr:begin", "\nWords before.\n\n<!-- hfasr:begin") + "\n## Thanks\n\nTo the speakers.\n", encoding="utf-8"
    )
    _write(run, results=RESULTS | {"test": RESULTS["test"] | {"per": 0.5}})
    again = write_card(run).read_text(encoding="utf-8")
    assert again.count("# ky_phoneme") == 1
    assert again.index("Words before.") < again.index("# ky_phoneme") < again.index("To the speakers.")
    assert "50.00" in again
    assert "12.35" not in again.partition("---\n\n")[2]
    assert ModelCard(again).data.license == "cc-by-4.0"
    assert ModelCard(again).data.thumbnail == "https://example.org/a.png"
    assert write_card(run).read_text(encoding="utf-8") == again
    assert ModelCard.load(write_card(run, license="mit")).data.license == "mit"


def test_a_card_by_hand_becomes_the_prose(run):
    (run / "README.md").write_text("My notes.\n", encoding="utf-8")
    text = write_card(run).read_text(encoding="utf-8")
    assert text.startswith("---\n")
    assert text.endswith("My notes.\n")


def test_character_run(run):
    results = {"test": {"cer": 0.05, "cer_ci95": [0.04, 0.06], "wer": 0.2, "wer_ci95": [0.1, 0.3], "utterances": 3, "seconds": 9.0}}
    _write(run, RECIPE | {"unit": "character"}, results)
    card = ModelCard.load(write_card(run))
    assert card.data.metrics == ["wer", "cer"]
    assert "**Character error rate on test: 5.00 %**" in card.text
    assert "espeak" not in card.text
    _write(run, RECIPE | {"unit": "character", "targets": {"unit": "sentencepiece"}}, results)
    assert "Targets: sentencepieces of the normalised transcripts." in write_card(run).read_text(encoding="utf-8")


def test_targets_of_a_lexicon_are_told(run):
    _write(run, RECIPE | {"targets": {"unit": "phoneme", "voice": "ky", "lexicon_sha256": "0"}})
    text = write_card(run).read_text(encoding="utf-8")
    assert "phonemes of a pronunciation lexicon, and of espeak-ng 1.52.0 for words it lacks." in text
    assert "what a lexicon or espeak-ng derives" in text
    results = {name: value for name, value in RESULTS.items() if name != "espeak_version"}
    _write(run, RECIPE | {"targets": {"unit": "phoneme", "lexicon_sha256": "0"}}, results)
    assert "espeak" not in write_card(run).read_text(encoding="utf-8")


def _head(run, **config):
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write(run, RECIPE | {"base_model": "/home/asel/stt_en_quartznet15x5.nemo"})
    return write_card(run).read_text(encoding="utf-8")


def test_where_the_rows_of_the_head_began_is_told(run):
    text = _head(run, vocab_size=43, kept_symbols=["<unk>", "|", "`"], paired_symbols={"қ": "k", "ң": "n"}, mean_symbols=37)
    assert (
        "3 of 42 symbols kept the head's rows of `stt_en_quartznet15x5.nemo`: `` <unk> | ` ``; paired: `қ from k, ң from n`; "
        "the others start from the mean of the old rows.\n"
    ) in text
    assert "fine-tuned from `stt_en_quartznet15x5.nemo`" in text
    text = _head(run, vocab_size=3, kept_symbols=["a", "b"], paired_symbols={}, mean_symbols=0)
    assert "2 of 2 symbols kept the head's rows of `stt_en_quartznet15x5.nemo`: `a b`.\n" in text
    text = _head(run, vocab_size=5001, kept_symbols=[], paired_symbols={}, mean_symbols=5000)
    assert "0 of 5,000 symbols kept the head's rows of `stt_en_quartznet15x5.nemo`; the others start" in text
    for untrained in ({}, {"kept_symbols": [], "paired_symbols": {}, "mean_symbols": 0, "vocab_size": 3}):
        text = _head(run, **untrained)
        assert "symbols kept" not in text
        assert "trained from `stt_en_quartznet15x5.nemo`" in text


def test_long_lists_of_symbols_are_cut(run):
    letters = [chr(0x4E00 + place) for place in range(5000)]
    text = _head(run, vocab_size=5001, kept_symbols=letters, paired_symbols={}, mean_symbols=0)
    assert f"`{' '.join(letters[:60])}` and 4,940 more." in text
    assert len(text) < 10_000


def test_settings_that_others_replace_are_left_out(run):
    arguments = {
        "novograd": [0.8, 0.5],
        "optim": "adamw_torch",
        "adam_beta1": 0.9,
        "lr_scheduler_kwargs": {"min_lr": 1e-5},
        "weight_decay": 1e-3,
    }
    _write(run, RECIPE | {"arguments": arguments})
    text = write_card(run).read_text(encoding="utf-8")
    for row in ("| `novograd` | [0.8, 0.5] |", "| `lr_scheduler_kwargs` | {'min_lr': 1e-05} |", "| `weight_decay` | 0.001 |"):
        assert row in text
    assert "adam" not in text


def test_parts_of_a_corpus_are_told(run):
    _write(run, RECIPE | {"arguments": {"train_parts": ["train-clean-100", "train-other-500"]}})
    assert "| `train_parts` | ['train-clean-100', 'train-other-500'] |" in write_card(run).read_text(encoding="utf-8")


def test_what_is_missing_is_said(run):
    _write(run, results={"train_seconds": 3})
    with pytest.raises(ValueError, match="no split with a rate, found train_seconds"):
        write_card(run)
    _write(run, {"language": "ky"})
    with pytest.raises(ValueError, match=r"recipe\.json has no unit, corpus, base_model, model_type, found language"):
        write_card(run)
    (run / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json is not JSON"):
        write_card(run)
    (run / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match="finished evaluation"):
        write_card(run)


def test_snippet_runs_where_hfasr_is_not_imported(run, tmp_path):
    import torch

    from hfasr.models.load import load_model
    from hfasr.models.quartznet import QuartzNetConfig
    from hfasr.text.vocabulary import build_tokenizer

    torch.manual_seed(0)
    blocks = [{"filters": 16, "kernel": 11, "stride": 2}, {"filters": 32, "kernel": 1, "separable": False}]
    model, processor = load_model(QuartzNetConfig(blocks=blocks), build_tokenizer(["ɑ l | k e l d[ i"], "phoneme"))
    model.save_pretrained(run)
    processor.save_pretrained(run)
    _write(run, RECIPE | {"base_model": "quartznet-small", "model_type": "quartznet"})
    text = write_card(run).read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert 'checkpoint = "ky_phoneme"' in snippet

    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    soundfile.write(tmp_path / "speech.wav", noise, 16_000, subtype="FLOAT")
    snippet += "\nimport sys\nassert not any(name.startswith('hfasr.') for name in sys.modules)\n"
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", snippet], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        logits = model(**processor(noise, sampling_rate=16_000, return_tensors="pt")).logits
    assert done.stdout.strip() == processor.batch_decode(logits.argmax(dim=-1))[0].strip() != ""
