"""Transcriber against one utterance at a time through the processor and the model by hand."""

import io
import multiprocessing
import os
import signal
import time
from itertools import groupby, islice, pairwise

import numpy as np
import pytest
import torch

from hfasr.audio import load_audio, write_audio
from hfasr.decoding.confidence import Confidence
from hfasr.decoding.greedy import labels_to_text
from hfasr.decoding.hypothesis import Hypothesis, Token, TokenSpan
from hfasr.inference.batches import sorted_batches
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.windows import transcribe_long
from hfasr.inference.transcriber import Transcriber


@torch.no_grad()
def by_hand(model, processor, waveform: np.ndarray) -> str:
    waveform = np.pad(waveform, (0, max(0, 1600 - len(waveform))))
    batch = processor(waveform, sampling_rate=16_000, return_tensors="pt")
    ids = model(**batch).logits[0].argmax(-1).tolist()
    if model.config.model_type == "wav2vec2-bert":  # it pads to pairs of frames, also when alone
        ids = ids[: ((len(waveform) - 400) // 160 + 1) // 2]
    symbols = {index: symbol for symbol, index in processor.tokenizer.get_vocab().items()}
    text = "".join(symbols[index] for index, _ in groupby(ids) if index != model.config.pad_token_id)
    return text.replace("|", " ").strip()


@pytest.mark.parametrize("family", ["quartznet", "unispeech", "wav2vec2-bert", "wav2vec2-group", "wav2vec2-adapter", "sew"])
def test_a_transcript_is_that_of_the_utterance_alone(family, build_model, waveforms):
    model, processor = build_model(family)
    shapes = []
    model.register_forward_pre_hook(lambda _, __, inputs: shapes.append(tuple(inputs[model.main_input_name].shape[:2])), with_kwargs=True)
    expected = [by_hand(model, processor, waveform) for waveform in waveforms]
    assert len(set(expected)) == len(expected)
    assert len("".join(expected)) > 15  # the adapter leaves 7 frames of a second
    for batch_seconds in (1e6, 3.0, 0.01):
        shapes.clear()
        transcripts = Transcriber((model, processor), batch_seconds=batch_seconds)(waveforms)
        assert [transcript.text for transcript in transcripts] == expected
        if batch_seconds == 1e6:
            assert [rows for rows, _ in shapes] == [7]
        if batch_seconds == 0.01:
            assert {rows for rows, _ in shapes} == {1}


def test_files_bytes_and_arrays_in_any_order(checkpoint, build_model, waveforms, recordings):
    wav, flac, mp3 = recordings / "z.wav", str(recordings / "b" / "a.FLAC"), recordings / "b" / "c" / "m.mp3"
    stored = wav.read_bytes()
    audio = {"array": np.repeat(waveforms[2].astype(np.float64), 2), "sampling_rate": 32_000}
    inputs = [flac, stored, waveforms[4], wav, {"path": str(mp3), "bytes": None}, f"{wav}#t=0.25,0.75", audio]
    transcripts = Transcriber(checkpoint, device="cpu")(inputs)
    loaded = [load_audio(source) for source in inputs]
    pair = build_model("quartznet")
    paths = [flac, None, None, str(wav), str(mp3), f"{wav}#t=0.25,0.75", None]
    for transcript, path, waveform in zip(transcripts, paths, loaded, strict=True):
        found = (transcript.text, transcript.path, transcript.duration, transcript.error)
        assert found == (by_hand(*pair, waveform), path, len(waveform) / 16_000, None)


def test_what_cannot_be_read_stops_nothing(checkpoint, waveforms, recordings, tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "notes.mp3").write_text("no audio")
    (tmp_path / "cut.wav").write_bytes((recordings / "z.wav").read_bytes()[:9000])
    whole = io.BytesIO()
    write_audio(whole, waveforms[0], format="WAV")
    nan = np.full(16_000, np.nan, np.float32)
    bad = [tmp_path / "none.wav", tmp_path / "empty.wav", tmp_path / "notes.mp3", tmp_path / "cut.wav", b"RIFF", nan, waveforms[0][:0]]
    inputs = [source for source in bad for source in (source, whole.getvalue())]
    transcripts = Transcriber(checkpoint, device="cpu")(inputs)
    good = transcripts[1]
    assert good.text
    assert good.error is None
    assert transcripts[1::2] == [good] * len(bad)
    reasons = ["no such audio file", "empty", "not audio", "cut short", "not audio", "NaN", "not a waveform"]
    for source, transcript, reason in zip(bad, transcripts[::2], reasons, strict=True):
        assert (transcript.text, transcript.duration) == ("", 0.0)
        assert reason in transcript.error
        if not isinstance(source, bytes | np.ndarray):
            assert str(source) in transcript.error
            assert transcript.path == str(source)
    assert Transcriber(checkpoint, device="cpu")([]) == []


@pytest.mark.parametrize("name", ["quartznet5x1_en", "citrinet_tiny_zh"])
def test_a_nemo_file_says_what_nemo_says(shared, name):
    reference = np.load(shared / "nemo" / f"{name}.ref.npz")
    waveforms = [reference[f"wav_{place}"] for place in range(4)]
    transcripts = Transcriber(shared / "nemo" / f"{name}.nemo", device="cpu")(waveforms)
    assert [transcript.text for transcript in transcripts] == reference["transcribe_text_bs4"].tolist()


def test_words_and_symbols_have_times(build_model, waveforms):
    model, processor = build_model("quartznet")
    with torch.no_grad():
        logits = model(**processor(waveforms[0], sampling_rate=16_000, return_tensors="pt")).logits[0]
    probabilities, frame = logits.softmax(-1), 0.02
    symbols = {index: symbol for symbol, index in processor.tokenizer.get_vocab().items()}
    expected, words, place = [], [[]], 0
    for label, frames in groupby(logits.argmax(-1).tolist()):
        count = len(list(frames))
        if symbols[label] == "|":
            words.append([])
        elif label != model.config.pad_token_id:
            best = probabilities[place : place + count, label].mean()
            sure = float((best * len(symbols) - 1) / (len(symbols) - 1))
            # frame t of a centred log-mel with stride 2 is centred on t x 20 ms
            expected.append((symbols[label], max(0, place - 0.5) * frame, min((place + count - 0.5) * frame, 1.0), sure))
            words[-1].append(expected[-1])
        place += count
    found = Transcriber((model, processor), confidence=Confidence("max", aggregate="mean"))(waveforms[:1])[0]
    assert len(expected) > 10
    for unit, (text, start, end, sure) in zip(found.symbols, expected, strict=True):
        assert unit.text == text
        assert (unit.start, unit.end, unit.confidence) == pytest.approx((start, end, sure), abs=1e-5)
    words = [word for word in words if word]
    for unit, word in zip(found.words, words, strict=True):
        assert unit.text == "".join(symbol[0] for symbol in word)
        assert (unit.start, unit.end) == pytest.approx((word[0][1], word[-1][2]))
        assert unit.confidence == pytest.approx(np.mean([symbol[3] for symbol in word]), abs=1e-5)
    assert found.text == " ".join(word.text for word in found.words)


def test_what_a_decoder_tells_is_used(build_model, waveforms):
    class Two:
        def decode(self, log_probs, lengths):
            tokens = (Token(5, 1, 2), Token(6, 2, 4), Token(7, 8, 9))
            words = (TokenSpan("uno", 0, 2), TokenSpan("due", 2, 3))
            return [[Hypothesis(tokens, -1.0, (), words, "uno due"), Hypothesis(tokens[:1], -2.5)] for _ in lengths]

    engine = TorchEngine(build_model("quartznet"))
    found = Transcriber(engine, decoder=lambda given: Two() if given is engine else None)(waveforms[:2])
    first = engine.tokenizer.convert_ids_to_tokens(5)
    assert [transcript.text for transcript in found] == ["uno due"] * 2
    assert [(word.text, word.start, word.end, word.confidence) for word in found[0].words] == [
        ("uno", pytest.approx(0.01), pytest.approx(0.07), None), ("due", pytest.approx(0.15), pytest.approx(0.17), None)
    ]  # fmt: skip
    assert [(reading.text, reading.score) for reading in found[0].readings] == [("uno due", -1.0), (first, -2.5)]


def test_inputs_are_taken_as_they_are_needed(checkpoint, waveforms):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield short[taken % 7]

    short = [waveform[:2000] for waveform in waveforms]
    transcriber = Transcriber(checkpoint, device="cpu", batch_seconds=5)
    expected = transcriber(short)
    found = {}
    for place, transcript in transcriber.iter(endless()):
        found[place] = transcript.text
        if len(found) == 600:
            break
    assert taken <= 3 * 512
    assert all(text == expected[(place + 1) % 7].text for place, text in found.items())


def test_inputs_that_fail_are_told_when_those_before_are_done(checkpoint, waveforms):
    def inputs():
        yield from [waveforms[5][:2000]] * 600
        raise LookupError("no more")

    started = Transcriber(checkpoint, device="cpu").iter(inputs())
    assert sorted(place for place, _ in islice(started, 600)) == list(range(600))
    with pytest.raises(LookupError, match="no more"):
        next(started)


def test_processes_read_what_a_thread_reads(checkpoint, waveforms, tmp_path):
    files = []
    for number in range(80):
        files.append(tmp_path / f"{number}.flac")
        write_audio(files[-1], waveforms[number % 6])
    files[7].write_bytes(b"no audio")
    expected = Transcriber(checkpoint, device="cpu", num_workers=0, batch_seconds=10)(files)
    assert Transcriber(checkpoint, device="cpu", num_workers=2, batch_seconds=10)(files) == expected
    assert expected[7].error
    for wait_seconds in (0, 0.3):  # found in what is read already, or when more is asked for
        started = Transcriber(checkpoint, device="cpu", num_workers=2, batch_seconds=2).iter(files * 20)
        next(started)
        workers = [process for process in multiprocessing.active_children() if "ForkProcess" in process.name]
        assert len(workers) == 2
        os.kill(workers[0].pid, signal.SIGKILL)
        time.sleep(wait_seconds)
        with pytest.raises(ValueError, match=r"was killed.*num_workers"):
            list(started)
    started = Transcriber(checkpoint, device="cpu", num_workers=2, batch_seconds=2).iter(files)
    next(started)
    started.close()
    assert not [process for process in multiprocessing.active_children() if "ForkProcess" in process.name]


@pytest.mark.parametrize("split", ["windows", "silence"])
def test_a_long_recording_is_transcribed_in_pieces(build_model, waveforms, split, tmp_path):
    pause = np.zeros(32_000, np.float32)
    recording = np.concatenate([part for place in range(24) for part in (waveforms[place % 6], pause)])
    write_audio(tmp_path / "long.flac", recording)
    transcriber = Transcriber(build_model("quartznet"), split=split, window_seconds=20)
    short, long = transcriber([waveforms[0], tmp_path / "long.flac"])
    assert short == transcriber([waveforms[0]])[0]
    assert long.duration == len(recording) / 16_000 > 40
    engine, labels, times = transcriber.engine, [], []
    for first, hypotheses in transcribe_long(engine, transcriber.decoder, tmp_path / "long.flac", split=split, window_seconds=20):
        labels.append([token.id for token in hypotheses[0].tokens])
        times += [first + token.start_frame for token in hypotheses[0].tokens if token.id != engine.tokenizer.convert_tokens_to_ids("|")]
    assert len(labels) > 1
    assert [symbol.start for symbol in long.symbols] == pytest.approx([engine.grid.seconds(time) for time in times])
    assert all(before.end <= after.start for before, after in pairwise(long.words))
    if split == "windows":
        assert long.text == labels_to_text([label for piece in labels for label in piece], engine.tokenizer)
    else:
        texts = [labels_to_text(piece, engine.tokenizer).strip() for piece in labels]
        assert long.text.split() == " ".join(texts).split()


def test_a_long_recording_that_is_cut_short_stops_nothing(checkpoint, waveforms, tmp_path):
    write_audio(tmp_path / "long.wav", np.tile(waveforms[4], 40))
    data = (tmp_path / "long.wav").read_bytes()
    (tmp_path / "long.wav").write_bytes(data[: len(data) * 3 // 4])
    transcriber = Transcriber(checkpoint, device="cpu")
    bad, good = transcriber([tmp_path / "long.wav", waveforms[0]])
    assert "cut short" in bad.error
    assert (bad.text, bad.words, good.error) == ("", (), None)


def test_recordings_in_memory_are_taken_until_they_are_many(build_model, waveforms, monkeypatch):
    monkeypatch.setattr("hfasr.inference.batches._POOL_BYTES", 200_000)
    taken = []
    inputs = (taken.append(number) or {"array": waveforms[0], "sampling_rate": 16_000} for number in range(60))
    found = Transcriber(build_model("quartznet"), batch_seconds=1).iter(inputs)
    next(found)
    assert len(taken) <= 16  # in pools of four
    assert len(list(found)) == 59


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_number_is_told(build_model, waveforms):
    model, processor = build_model("unispeech")
    bad, good = Transcriber((model, processor))([waveforms[0] * np.float32(3e38), waveforms[1]])
    assert "NaN" in bad.error
    assert (bad.text, bad.symbols, good.error) == ("", (), None)


def test_wrong_arguments_are_told(checkpoint, build_model, waveforms, recordings):
    transcriber = Transcriber(build_model("quartznet"))
    for one in (str(recordings / "z.wav"), recordings, waveforms[0], b"RIFF"):
        with pytest.raises(TypeError, match="give it in a list"):
            transcriber(one)
    with pytest.raises(TypeError, match="input 1 is float"):
        transcriber([waveforms[0], 0.5])
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="batch_seconds is"):
            Transcriber(checkpoint, batch_seconds=seconds)
    for options, message in (
        ({"split": "words"}, "split is 'words'"), ({"window_seconds": 0}, "window_seconds is 0"),
        ({"window_seconds": 3}, "window_seconds is 3, expected at least 6"), ({"window_seconds": 1, "split": "silence"}, "at most 1 s"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"decoder": transcriber.decoder, "confidence": "max"}, "exclude each other"), ({"confidence": "sure"}, "'sure'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Transcriber(checkpoint, **options)
    with pytest.raises(ValueError, match="settings of the engine"):
        Transcriber(transcriber.engine, device="cpu")
    for device in ("gpu", "cuda:64"):
        with pytest.raises(ValueError, match=f"device is '{device}'"):
            Transcriber(checkpoint, device=device)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Transcriber(recordings)


@pytest.mark.parametrize("equal", [False, True])
def test_batches_hold_every_row_once_and_keep_the_budget(equal):
    rng = np.random.default_rng(1)
    for budget in (0.5, 7.0, 40.0):
        seconds = {place: float(length) for place, length in enumerate(rng.integers(1, 30, size=200) / 3)}
        batches = sorted_batches(seconds, budget, equal=equal)
        assert sorted(place for batch in batches for place in batch) == list(range(200))
        for batch in batches:
            lengths = [seconds[place] for place in batch]
            assert len(batch) == 1 or len(batch) * max(lengths) <= budget
            assert len(set(lengths)) == 1 or not equal
        first = [seconds[batch[0]] for batch in batches]
        assert first == sorted(first, reverse=True)


@pytest.mark.gpu
def test_cuda_gives_the_same_but_for_rounding(build_model, waveforms):
    expected, lengths = TorchEngine(build_model("quartznet")).log_probs(waveforms[:-1])
    log_probs, found = TorchEngine(build_model("quartznet"), device="cuda").log_probs(waveforms[:-1])
    assert found.tolist() == lengths.tolist()
    for row, frames in enumerate(lengths.tolist()):
        assert (log_probs[row, :frames].cpu() - expected[row, :frames]).abs().mean() < 0.05


def test_a_batch_that_does_not_fit_the_memory_is_computed_in_parts(build_model, waveforms, caplog):
    class Small(TorchEngine):
        rows = 2

        def forward(self, batch):
            if len(batch.values) > self.rows:
                raise torch.OutOfMemoryError("too much")
            return super().forward(batch)

    pair = build_model("unispeech")
    expected = [found.text for found in Transcriber(pair)(waveforms)]
    engine = Small(pair)
    assert [found.text for found in Transcriber(engine)(waveforms)] == expected
    assert "--batch-seconds" in caplog.text
    engine.rows = 0
    with pytest.raises(ValueError, match="2 s of audio do not fit the memory of cpu"):
        Transcriber(engine)(waveforms)
