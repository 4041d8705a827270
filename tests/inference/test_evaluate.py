"""`hfasr evaluate` as a user runs it: the numbers of training again, models of other toolkits, bad clips, and two systems compared."""

import json
from functools import partial
from pathlib import Path

import jiwer
import pytest
import recipe_runs
import torch
from datasets import Dataset, DatasetDict
from transformers import Wav2Vec2CTCTokenizer

from hfasr import Normalizer, Phonemizer, build_tokenizer, load_model
from hfasr.corpora import common_voice
from hfasr.corpora.rows import build_rows, plain
from hfasr.decoding.ngram import estimate_ngram, write_arpa
from hfasr.inference.evaluate import _missing, check_output, evaluate_model
from hfasr.inference.held_out import load_splits
from hfasr.inference.transcriber import Transcriber
from hfasr.models import QuartzNetConfig

SCORED = ("validation", "test")


@pytest.fixture(scope="module")
def trained(toy_release, tmp_path_factory) -> Path:
    """A run of one update, from weights that say something in most frames."""
    folder = tmp_path_factory.mktemp("runs")
    targets = Phonemizer("ky", word_bars=False)(common_voice(toy_release, splits=["train"])["train"]["text"])
    torch.manual_seed(0)
    blocks = [{"filters": 24, "kernel": 5, "stride": 2}, {"filters": 24, "kernel": 7}, {"filters": 24, "kernel": 9, "dilation": 2}]
    model, processor = load_model(QuartzNetConfig(blocks=blocks), build_tokenizer(targets))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for part in (model, processor):
        part.save_pretrained(folder / "start")
    recipe_runs.run(
        "ky_phoneme", "--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "--cpu_threads", "1", "--base_model", folder / "start",
        "--max_steps", "1", "--max_batch_seconds", "40", "--eval_strategy", "no", "--save_strategy", "no",
        "--load_best_model_at_end", "false", "--corpus", toy_release, "--output_dir", folder / "ky_phoneme",
    )  # fmt: skip
    return folder / "ky_phoneme"


@pytest.fixture
def run(verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(verb, "evaluate")


def _read(folder: Path) -> tuple[dict, list[dict]]:
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((folder / "results.json").read_text(encoding="utf-8")), [json.loads(line) for line in lines]


def test_gives_the_results_of_training_again(trained, toy_release, run, tmp_path):
    results, predictions = _read(trained)
    assert len({row["hypothesis"] for row in predictions}) == 12
    status, shown, _ = run("--model", trained, "--device", "cpu")  # recipe.json names the corpus and the splits
    assert status == 0
    folder = tmp_path / "runs" / f"ky_phoneme-on-{toy_release.parent.name}-ky"
    found, rows = _read(folder)
    assert rows == predictions
    assert {split: found[split] for split in SCORED} == {split: results[split] for split in SCORED}
    assert found["unit"] == results["unit"] == "phoneme"
    assert found["evaluation"]["targets"] == {"unit": "phoneme", "voice": "ky", "espeak_version": "1.52.0"}
    assert f"test: PER {100 * results['test']['per']:.2f} %" in shown
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "phonemes of espeak-ng 1.52.0, voice ky" in page
    assert (folder / "quarantine.jsonl").read_text() == ""

    assert "holds an evaluation" in run("--model", trained)[2]
    words = ["--model", trained, "--corpus", toy_release, "--split", "test", "--output", folder, "--replace"]
    assert run(*words)[0] == 0
    assert _read(folder)[0]["test"] == results["test"]
    assert "validation" not in _read(folder)[0]


def test_two_runs_are_compared(trained, toy_release, run, tmp_path):
    run("--model", trained, "--corpus", toy_release, "--split", "dev,test", "--output", tmp_path / "again")
    other = tmp_path / "other"
    other.mkdir()
    results, predictions = _read(trained)
    (other / "results.json").write_text(json.dumps(results))
    better = [row | {"hypothesis": row["reference"]} for row in predictions]
    (other / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in better))
    status, shown, _ = run("--compare", trained, tmp_path / "again")
    assert status == 0
    assert "+0.00" in shown
    status, shown, _ = run("--compare", trained, other, "--output", tmp_path / "out")
    assert status == 0
    assert "100.0 %" in shown
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["splits"]["test"]["per"]["difference"] == -results["test"]["per"]
    assert "exists; give another folder" in run("--compare", trained, other, "--output", tmp_path / "out")[2]
    (other / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in better[1:]))
    assert f"the second has no utterance '{better[0]['id']}'" in run("--compare", trained, other)[2]
    assert "--compare reads what two folders hold" in run("--compare", trained, other, "--model", trained)[2]


def test_text_of_another_toolkits_model_is_normalized_on_both_sides(build_model, toy_release, tmp_path, run, caplog):
    """Its vocabulary has capitals, as wav2vec2-base-960h has, and lacks letters."""
    model, processor = build_model("quartznet")
    symbols = processor.tokenizer.get_vocab()
    (tmp_path / "vocab.json").write_text(json.dumps({symbol if symbol[0] == "<" else symbol.upper(): i for symbol, i in symbols.items()}))
    processor.tokenizer = Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), pad_token="<pad>", unk_token="<unk>", bos_token=None, eos_token=None
    )
    for part in (model, processor):
        part.save_pretrained(tmp_path / "foreign")
    words = ["--model", tmp_path / "foreign", "--corpus", toy_release, "--split", "test", "--output", tmp_path / "out"]
    assert "does not say how its targets were made; give the language" in run(*words)[2]
    with caplog.at_level("WARNING", "hfasr"):
        assert run(*words, "--language", "ky")[0] == 0
    results, predictions = _read(tmp_path / "out")
    rows = common_voice(toy_release, splits=["test"])["test"]
    texts = [found.text for found in Transcriber(str(tmp_path / "foreign"), device="cpu")([row["audio"]["array"] for row in rows])]
    assert any(text != text.lower() for text in texts)
    normalizer = Normalizer("ky")
    assert [row["reference"] for row in predictions] == [normalizer(row["text"]) for row in rows]
    assert [row["hypothesis"] for row in predictions] == [normalizer(text) for text in texts]
    # jiwer strips the references; ours count the spaces within
    expected = jiwer.process_characters([row["reference"] for row in predictions], [row["hypothesis"].strip() for row in predictions])
    assert results["test"]["cer"] == pytest.approx(expected.cer)
    assert results["evaluation"]["hypotheses_normalized"]
    missing = set("".join(row["reference"] for row in predictions)) - set("ал ээр келди бтсогө")
    assert set(results["evaluation"]["missing_symbols"]["test"]) == missing
    assert f"test holds {len(missing)} symbols that the model lacks" in caplog.text


def test_apostrophe_of_another_toolkits_model_is_not_missing(tmp_path):
    """A normalizer takes it away where it stands alone; the name of <unk> is no k."""
    symbols = ["<pad>", "<unk>", "|", *"DONT'"]
    (tmp_path / "vocab.json").write_text(json.dumps({symbol: place for place, symbol in enumerate(symbols)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), bos_token=None, eos_token=None)
    corpus = DatasetDict(test=Dataset.from_dict({"target": ["don't dunk"]}))
    assert _missing(corpus, tokenizer, Normalizer("en")) == {"test": {"u": 1, "k": 1}}


def test_clips_that_cannot_be_read_are_left_out_and_listed(trained, toy_release, tmp_path):
    rows = list(plain(common_voice(toy_release, splits=["test"])["test"]))
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"no audio")
    rows[1]["audio"] = {"path": str(bad), "bytes": None}
    results = evaluate_model(trained, {"test": build_rows(rows)}, tmp_path / "out", device="cpu")
    assert (results["test"]["utterances"], results["evaluation"]["left_out"]) == (5, 1)
    (listed,) = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert (listed["split"], listed["id"], listed["path"]) == ("test", rows[1]["id"], str(bad))
    assert "not audio" in listed["reason"]
    with pytest.raises(ValueError, match=r"split 'test' cannot be evaluated: none of the 1 clips can be read"):
        evaluate_model(trained, {"test": build_rows(rows[1:2])}, tmp_path / "none", device="cpu")


def test_splits_are_found(toy_release, tmp_path):
    def names(*arguments, **options) -> list[str]:
        return list(load_splits(*arguments, **options)[1])

    assert names(str(toy_release)) == ["validation", "test"]
    assert names(str(toy_release), ["test", "dev"]) == ["test", "validation"]
    assert names(str(toy_release), ["other", "train"]) == ["other", "train"]
    with pytest.raises(ValueError, match=r"has no split 'tets', found train, validation, test"):
        names(str(toy_release), ["tets"])
    with pytest.raises(ValueError, match="give --corpus"):
        names(None, model=tmp_path)
    with pytest.raises(ValueError, match="give one, such as --language ky"):
        names("embedded")
    with pytest.raises(ValueError, match="give the splits to load from the Hub"):
        names("google/fleurs")
    with pytest.raises(FileNotFoundError, match="no such corpus"):
        names("nowhere")


def test_what_would_be_overwritten_is_refused(trained, toy_release, tmp_path, run):
    words = ["--model", trained, "--corpus", toy_release, "--output"]
    assert "holds a model or a run" in run(*words, trained, "--replace")[2]
    (tmp_path / "file").touch()
    assert "is a file; give a folder" in run(*words, tmp_path / "file")[2]
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "a.wav").touch()
    for more in ([], ["--replace"]):
        assert "holds files that are no evaluation" in run(*words, tmp_path / "recordings", *more)[2]
    assert check_output(tmp_path / "new", False).is_dir()
    for name in ("results.json", "predictions.jsonl", "notes.txt"):
        (tmp_path / "new" / name).touch()
    assert check_output(tmp_path / "new", True).is_dir()
    assert "give a model to evaluate" in run("--corpus", toy_release)[2]
    assert "unit is 'character', but the model was trained on phonemes" in run(*words, tmp_path / "out", "--unit", "character")[2]


@pytest.fixture
def phoneme_lm(toy_release, tmp_path) -> Path:
    targets = Phonemizer("ky", word_bars=False)(common_voice(toy_release, splits=["train"])["train"]["text"])
    write_arpa(tmp_path / "lm.arpa", estimate_ngram(targets, 2))
    return tmp_path / "lm.arpa"


def test_weights_are_tuned_on_the_split_to_develop_on(trained, toy_release, phoneme_lm, tmp_path, run):
    pytest.importorskip("flashlight.lib.text", reason="flashlight-text, of the extra lm, is not installed")
    words = ["--model", trained, "--corpus", toy_release, "--split", "test", "--lm", phoneme_lm, "--beam-size", 4]
    status, shown, log = run(*words, "--tune", "--output", tmp_path / "tuned")
    assert status == 0, log
    evaluation = _read(tmp_path / "tuned")[0]["evaluation"]
    tuned, best = evaluation["tuned"], evaluation["tuned"]["best"]
    assert (tuned["split"], tuned["utterances"]) == ("validation", 6)
    assert f"tuned on validation, 6 utterances: alpha {best['alpha']:g}, beta {best['beta']:g}" in shown
    assert evaluation["decoder"] == {"name": "beam search", "lm": "lm.arpa", "beam_size": 4, **best}

    def found(folder: str, split: str, **numbers: float) -> dict:
        flags = [word for name, value in numbers.items() for word in (f"--{name}", value)]
        assert run("--model", trained, "--corpus", toy_release, "--split", split, "--lm", phoneme_lm, "--beam-size", 4, *flags,
                   "--output", tmp_path / folder)[0] == 0  # fmt: skip
        return _read(tmp_path / folder)[0][split]

    # what the trials say is what an evaluation with their weights says, and the weights are those that the test was decoded with
    assert found("dev", "validation", **best)["per"] == pytest.approx(tuned["rate"])
    first = tuned["trials"][0]
    assert found("first", "validation", alpha=first["alpha"], beta=first["beta"])["per"] == pytest.approx(first["rate"])
    assert first["rate"] > tuned["rate"] == min(trial["rate"] for trial in tuned["trials"])
    assert found("test", "test", **best) == _read(tmp_path / "tuned")[0]["test"]


def test_what_cannot_be_tuned_is_refused(trained, toy_release, phoneme_lm, tmp_path, run):
    words = ["--model", trained, "--corpus", toy_release, "--tune", "--output", tmp_path / "out"]
    assert "test is a split to test on" in run(*words, "--lm", phoneme_lm, "--tune-split", "test")[2]
    assert "there is nothing to tune" in run(*words)[2]
    assert "--alpha weighs what --lm names" in run(*words, "--alpha", 1)[2]
    assert "--hotword-weight weighs what --hotwords names" in run(*words, "--lm", phoneme_lm, "--hotword-weight", 1)[2]
    assert "tune_seconds is 0" in run(*words, "--lm", phoneme_lm, "--tune-seconds", 0)[2]
    with pytest.raises(ValueError, match="one split to develop on, found none"):
        evaluate_model(trained, {}, tmp_path / "out", beam={"lm": str(phoneme_lm)}, tune_on={})


def test_a_model_of_phonemes_that_writes_words_is_counted_by_words(trained, toy_release, tmp_path, run):
    pytest.importorskip("flashlight.lib.text", reason="flashlight-text, of the extra lm, is not installed")
    rows = common_voice(toy_release, splits=["test"])["test"]
    normalizer, phonemizer = Normalizer("ky"), Phonemizer("ky", word_bars=False)
    words = sorted({word for text in rows["text"] for word in normalizer(text).split()})
    entries = dict(zip(words, phonemizer(words), strict=True))
    # and a word for every phoneme, so that random weights find a way through
    phonemes = [symbol for symbol in json.loads((trained / "vocab.json").read_text(encoding="utf-8")) if symbol[0] != "<"]
    entries |= {f"дыбыш{chr(0x430 + place // 8)}{chr(0x430 + place % 8)}": phoneme for place, phoneme in enumerate(phonemes)}
    lexicon = tmp_path / "words.tsv"
    lexicon.write_text("".join(f"{word.upper()}\t{phonemes}\n" for word, phonemes in entries.items()), encoding="utf-8")
    status, shown, log = run("--model", trained, "--corpus", toy_release, "--split", "test", "--lexicon", lexicon, "--beam-size", 4,
                             "--output", tmp_path / "out")  # fmt: skip
    assert status == 0, log
    results, predictions = _read(tmp_path / "out")
    assert results["unit"] == "word"
    assert [row["reference"] for row in predictions] == normalizer(rows["text"])
    heard = {word for row in predictions for word in row["hypothesis"].split()}
    assert heard
    assert heard <= set(normalizer(list(entries)))  # as the references are written, not as the lexicon has them
    assert results["test"]["wer"] == jiwer.wer([row["reference"] for row in predictions], [row["hypothesis"] for row in predictions])
    assert "test: WER" in shown
