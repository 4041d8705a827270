"""The recipe as a user runs it: a whole run on a toy corpus, what it leaves behind, and what it refuses."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
import recipe_runs
import torch
from recipe_runs import REPOSITORY, parsed
from transformers import UniSpeechConfig

from hfasr import Normalizer, prepare
from hfasr.corpora import common_voice, embedded
from hfasr.corpora.rows import plain

QUICK = [
    "--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "--cpu_threads", "1", "--base_model", "quartznet-small",
    "--num_train_epochs", "2",
]  # fmt: skip
BRIEF = [*QUICK, "--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]


def run(*flags: str | Path) -> None:
    recipe_runs.run("ky_phoneme", *flags)


def run_char(monkeypatch, *flags: str | Path) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "recipes")  # as for a script that is run there
    recipe_runs.run("ky_char", *flags)


@pytest.fixture(scope="module")
def finished(toy_release, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ky_phoneme"
    run(*QUICK, "--corpus", toy_release, "--output_dir", folder)
    return folder


def test_the_run_folder_is_complete(finished):
    names = "model.safetensors config.json vocab.json recipe.json results.json predictions.jsonl report.html README.md quarantine.jsonl"
    for name in names.split():
        assert (finished / name).is_file(), name
    recipe = json.loads((finished / "recipe.json").read_text())
    assert recipe["arguments"]["max_batch_seconds"] == 40.0
    assert recipe["targets"]["espeak_version"] == "1.52.0"
    assert recipe["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert not list(finished.glob("*.tmp"))


def test_results_are_those_of_the_predictions(finished):
    results = json.loads((finished / "results.json").read_text())
    predictions = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    for split, count in (("validation", 6), ("test", 6)):
        rows = [row for row in predictions if row["split"] == split]
        assert len(rows) == count == results[split]["utterances"]
        assert results[split]["per"] == pytest.approx(jiwer.wer([row["reference"] for row in rows], [row["hypothesis"] for row in rows]))
        low, high = results[split]["per_ci95"]
        assert low <= results[split]["per"] <= high
    assert 0 < results["speed"]["seconds"] < results["train_seconds"] + 0.1
    assert results["speed"].keys() >= {"audio_seconds_per_second", "padding", "data_wait", "flop_utilisation", "memory_gib"}


# Computes the logits and the text of a waveform, as a user without hfasr would.
FRESH = """
import json, sys
import numpy as np, torch
folder, waveform = sys.argv[1:]
sys.modules["hfasr"] = None  # not importable
from transformers import AutoModelForCTC, AutoProcessor, pipeline
trust = {"trust_remote_code": True}
model = AutoModelForCTC.from_pretrained(folder, **trust).eval()
processor = AutoProcessor.from_pretrained(folder, **trust)
with torch.no_grad():
    logits = model(**processor(np.load(waveform), sampling_rate=16000, return_tensors="pt")).logits
np.save(waveform + ".logits.npy", logits.numpy())
recognise = pipeline("automatic-speech-recognition", model=folder, **trust)
print(json.dumps(recognise({"raw": np.load(waveform), "sampling_rate": 16000})["text"]))
"""


def test_a_fresh_process_gives_the_same_logits_and_text(finished, toy_release, tmp_path):
    from hfasr.models.load import load_model

    row = common_voice(toy_release, splits=["test"])["test"][0]
    np.save(tmp_path / "waveform.npy", row["audio"]["array"])
    model, processor = load_model(finished)
    with torch.no_grad():
        expected = model.eval()(**processor(row["audio"]["array"], sampling_rate=16_000, return_tensors="pt")).logits.numpy()
    found = subprocess.run(
        [sys.executable, "-c", FRESH, finished, tmp_path / "waveform.npy"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    np.testing.assert_allclose(np.load(tmp_path / "waveform.npy.logits.npy"), expected, atol=1e-5)
    predicted = next(json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines() if f'"{row["id"]}"' in line)
    assert json.loads(found.stdout.splitlines()[-1]) == predicted["hypothesis"]


@pytest.mark.slow
@pytest.mark.parametrize(("base_model", "learning_rate", "updates"), [("unispeech-tiny", "2e-3", "300"), ("wav2vec2-tiny", "5e-4", "400")])
def test_random_weights_overfit_eight_utterances(base_model, learning_rate, updates, tmp_path):
    release = embedded("ky", seed=3, utterances={"train": 8})
    for split in ("dev", "test"):
        shutil.copy(release / "train.tsv", release / f"{split}.tsv")
    still = {"mask_time_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0}
    run(
        "--base_model", base_model, "--corpus", release, "--output_dir", tmp_path / "run", "--report_to", "none", "--use_cpu",
        "--max_steps", updates, "--max_batch_seconds", "100", "--learning_rate", learning_rate,
        "--lr_scheduler_type", "constant_with_warmup",
        "--warmup_steps", "20",
        "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false",
        "--disable_tqdm", "true", "--freeze_feature_encoder", "false", "--model_config", json.dumps(still),
    )  # fmt: skip
    assert json.loads((tmp_path / "run" / "results.json").read_text())["test"]["per"] == 0.0


def damage(path: Path, kind: str, number: int) -> None:
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) * (number % 9) // 10])
    elif kind == "zeroed":
        path.write_bytes(bytes(len(data)))
    elif kind == "wrong extension":
        path.write_text("<html><body>404</body></html>\n" * number)
    else:
        path.write_bytes(np.random.default_rng(number).bytes(len(data)))


def test_two_hundred_damaged_clips_are_listed_and_training_ends(toy_release, tmp_path):
    release = tmp_path / "ky"
    shutil.copytree(toy_release, release)
    header, *rows = (release / "train.tsv").read_text("utf-8").splitlines()
    good = plain(common_voice(toy_release, splits=["train"])["train"])
    kinds = ("truncated", "zeroed", "wrong extension", "random bytes")
    for number in range(200):
        columns = rows[number % len(rows)].split("\t")
        shutil.copy(release / "clips" / columns[1], release / "clips" / f"bad_{number}.mp3")
        damage(release / "clips" / f"bad_{number}.mp3", kinds[number % 4], number)
        rows.append("\t".join([columns[0], f"bad_{number}.mp3", *columns[2:]]))
    (release / "train.tsv").write_text("\n".join([header, *rows]) + "\n", "utf-8")
    run(*BRIEF, "--corpus", release, "--output_dir", tmp_path / "run")
    listed = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(item["id"] for item in listed) == sorted(f"bad_{number}" for number in range(200))
    assert all(item["reason"] and item["path"].endswith(f"{item['id']}.mp3") for item in listed)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["corpus"]["splits"]["train"]["utterances"] == len(good)
    assert recipe["corpus"]["left_out"] == 200


def test_a_clip_that_goes_bad_during_training_is_listed(toy_release, tmp_path, monkeypatch):
    """The check came before; the disk failed after."""
    import hfasr.training.recipe

    release = tmp_path / "ky"
    shutil.copytree(toy_release, release)
    spoiled = plain(common_voice(release, splits=["train"])["train"])[0]
    check = hfasr.training.recipe.check_audio

    def check_then_spoil(corpus, **options):
        result = check(corpus, **options)
        Path(spoiled["audio"]["path"]).write_bytes(b"gone")
        return result

    monkeypatch.setattr(hfasr.training.recipe, "check_audio", check_then_spoil)
    run(*QUICK, "--corpus", release, "--output_dir", tmp_path / "run", "--num_train_epochs", "1", "--eval_strategy", "no",
        "--save_strategy", "no", "--load_best_model_at_end", "false")  # fmt: skip
    (listed,) = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert listed["id"] == spoiled["id"]


def refused(capsys, *flags) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*flags)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\nerror: ") + message.startswith("error: ") == 1
    return message


def test_wrong_input_is_one_sentence(toy_release, finished, tmp_path, capsys):
    new = ["--output_dir", tmp_path / "run", "--corpus", toy_release]
    assert "nowhere: no such corpus" in refused(capsys, *QUICK, "--output_dir", tmp_path / "run", "--corpus", "nowhere")
    assert "looks like no source that is known" in refused(
        capsys, *QUICK, "--output_dir", tmp_path / "run", "--corpus", REPOSITORY / "hfasr"
    )
    assert "holds another run or model" in refused(capsys, *QUICK, "--corpus", toy_release, "--output_dir", finished)
    assert "max_batch_seconds is 2 but the longest row" in refused(capsys, *QUICK, *new, "--max_batch_seconds", "2")
    assert "no folder here" in refused(capsys, *new, "--base_model", "somewhere/nothing")
    assert "per_device_train_batch_size is 4" in refused(capsys, *QUICK, *new, "--per_device_train_batch_size", "4")
    assert "mask_time, which a quartznet configuration does not know" in refused(capsys, *QUICK, *new, "--model_config", '{"mask_time": 1}')
    assert "add up to 1" in refused(capsys, *QUICK, *new, "--tri_stage", "0.5", "0.5", "0.5")
    assert "40" in refused(capsys, *QUICK, *new, "--min_seconds", "40", "--max_seconds", "50")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_refused_run_does_not_block_its_folder(toy_release, tmp_path, capsys):
    flags = [*BRIEF, "--corpus", toy_release, "--output_dir", tmp_path / "run"]
    assert "longest row" in refused(capsys, *flags, "--max_batch_seconds", "2")
    assert "add up to 1" in refused(capsys, *flags, "--tri_stage", "1", "1", "1")
    run(*flags)
    assert (tmp_path / "run" / "results.json").is_file()


def test_a_base_model_is_never_overwritten(toy_release, finished, tmp_path, capsys):
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.json", "tokenizer_config.json", "processor_config.json"):
        shutil.copy(finished / name, base / name)
    before = (base / "model.safetensors").read_bytes()
    assert "another run or model" in refused(capsys, "--corpus", toy_release, "--base_model", base, "--output_dir", base)
    assert (base / "model.safetensors").read_bytes() == before


def test_a_run_is_resumed_as_it_was(toy_release, finished, tmp_path, capsys):
    before = (finished / "recipe.json").read_bytes()
    flags = [*QUICK, "--corpus", toy_release, "--output_dir", finished, "--resume_from_checkpoint"]
    assert "base_model quartznet-small" in refused(capsys, *flags, "--base_model", "quartznet-5x1")
    assert "max_batch_seconds 40.0" in refused(capsys, *flags, "--max_batch_seconds", "30")
    assert "with optim adamw_torch_fused, this command comes with optim sgd; the checkpoint's" in refused(capsys, *flags, "--optim", "sgd")
    assert "with learning_rate 0.5; the checkpoint's optimiser goes on" in refused(capsys, *flags, "--learning_rate", "0.5")
    message = refused(capsys, *flags, "--novograd", "0.8", "0.5", "--learning_rate", "0.01")
    assert "without novograd, this command comes with novograd [0.8, 0.5]; the checkpoint's optimiser" in message
    (checkpoint, *_) = finished.glob("checkpoint-*")
    flags = [*QUICK, "--corpus", toy_release, "--output_dir", tmp_path / "new", "--resume_from_checkpoint", checkpoint]
    assert f"{finished} was trained with base_model quartznet-small" in refused(capsys, *flags, "--base_model", "quartznet-5x1")
    assert f"{finished} was trained with freeze_layers 0" in refused(capsys, *flags, "--freeze_layers", "1")
    assert (finished / "recipe.json").read_bytes() == before


def test_a_run_of_novograd_is_resumed_with_it(toy_release, finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["arguments"]["novograd"] = [0.8, 0.5]
    (folder / "recipe.json").write_text(json.dumps(recipe))
    flags = [*QUICK, "--corpus", toy_release, "--output_dir", folder, "--resume_from_checkpoint"]
    assert "with novograd [0.8, 0.5], this command comes without novograd" in refused(capsys, *flags)
    other = refused(capsys, *flags, "--novograd", "0.8", "0.25", "--learning_rate", "0.01")
    assert "this command comes with novograd [0.8, 0.25]" in other


def test_a_flag_wins_over_the_preset_of_the_same_purpose(tmp_path):
    UniSpeechConfig().save_pretrained(tmp_path / "pretrained")
    pretrained = ["--base_model", tmp_path / "pretrained", "--output_dir", tmp_path / "run"]
    stock, epochs, cosine, steps = (
        parsed("ky_phoneme", *pretrained, *flags)
        for flags in ([], ["--num_train_epochs", "3"], ["--lr_scheduler_type=cosine", "--warmup-steps", "9"], ["--max_steps", "7"])
    )
    assert (stock.max_steps, stock.tri_stage) == (20_000, [0.1, 0.4, 0.5])
    assert (epochs.max_steps, epochs.num_train_epochs, epochs.tri_stage) == (-1, 3, [0.1, 0.4, 0.5])
    assert (cosine.tri_stage, cosine.lr_scheduler_type, cosine.warmup_steps, cosine.max_steps) == (None, "cosine", 9, 20_000)
    assert steps.max_steps == 7


def test_resuming_on_other_targets_is_refused(finished, tmp_path, capsys):
    other = embedded("ky", seed=4, utterances={"train": 12, "dev": 2, "test": 2})
    message = refused(capsys, *QUICK, "--corpus", other, "--output_dir", finished, "--resume_from_checkpoint")
    assert "targets_sha256" in message


def test_characters_share_the_recipe(toy_release, tmp_path, monkeypatch, caplog):
    run_char(monkeypatch, *BRIEF, "--corpus", toy_release, "--output_dir", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    predictions = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    test = [row for row in predictions if row["split"] == "test"]
    assert results["test"]["cer"] == pytest.approx(jiwer.cer([row["reference"] for row in test], [row["hypothesis"] for row in test]))
    assert results["test"]["wer"] > 0
    assert test[0]["reference"] == Normalizer("ky")(test[0]["text"])
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["targets"]["normalizer"] == "ky"
    assert recipe["arguments"]["metric_for_best_model"] == "cer"


def test_leaks_are_printed(toy_release, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hfasr"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("hfasr"), "handlers", [logging.NullHandler()])  # else the recipe sets up its own
    release = tmp_path / "ky"
    shutil.copytree(toy_release, release)
    header, *lines = (release / "train.tsv").read_text(encoding="utf-8").splitlines()
    sentence = lines[0].split("\t")[header.split("\t").index("sentence")]
    rows = [line.split("\t") for line in (release / "test.tsv").read_text(encoding="utf-8").splitlines()]
    rows[1][rows[0].index("sentence")] = sentence.upper().replace("О", "O").replace("А", "A") + " !"
    (release / "test.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    run(*BRIEF, "--corpus", release, "--output_dir", tmp_path / "run")
    assert "what training shares with the splits that it is tested on" in caplog.text
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["corpus"]["leaks"]["test"]["sentence_rows"] == 1
    assert sentence not in json.dumps(recipe["corpus"]["leaks"], ensure_ascii=False)


def test_a_prepared_corpus_is_streamed(toy_release, tmp_path):
    prepare(common_voice(toy_release, splits=["train", "validation", "test"]), tmp_path / "shards", num_workers=1, shard_seconds=20)
    steps = ["--max_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3", "--save_strategy", "steps", "--save_steps", "3"]
    flags = ["--corpus", tmp_path / "shards", "--stream", "--min_seconds", "1.0", "--stream_window", "16", "--output_dir", tmp_path / "run"]
    run(*QUICK, *flags, *steps)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["corpus"]["streamed"] is True
    assert recipe["corpus"]["splits"]["train"]["utterances"] == 24
    assert recipe["corpus"]["leaks"]["test"]["rows"] == 6
    assert json.loads((tmp_path / "run" / "results.json").read_text())["updates"] == 3
    assert (tmp_path / "run" / "README.md").is_file()
