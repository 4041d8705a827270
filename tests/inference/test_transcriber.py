"""Transcriber against one utterance at a time through the processor and the model by hand."""

import io
from itertools import groupby

import numpy as np
import pytest
import torch

from hfasr.audio import load_audio, write_audio
from hfasr.inference.transcriber import Transcriber, sorted_batches
from hfasr.inference.transcript import Transcript
from hfasr.models.mel import MelFeatureExtractor


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
            exact = family in ("quartznet", "unispeech", "wav2vec2-bert")
            assert [rows for rows, _ in shapes] == ([7] if exact else [1, 1, 1, 2, 1, 1])
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
        assert transcript == Transcript(by_hand(*pair, waveform), path, len(waveform) / 16_000)


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


def test_text_is_what_the_tokenizer_gives(build_model, waveforms):
    class Shouting:
        def decode(self, labels, **options):
            return f"  {len(labels)} "

    model, processor = build_model("quartznet")
    processor.tokenizer, tokenizer = Shouting(), processor.tokenizer
    text = Transcriber((model, processor))(waveforms[:1])[0].text
    processor.tokenizer = tokenizer
    assert text.startswith("  ")
    assert text.endswith(" ")


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
    model, processor = build_model("quartznet")
    assert isinstance(processor.feature_extractor, MelFeatureExtractor)
    expected, lengths = Transcriber((model, processor))._logits(waveforms[:-1])
    logits, found = Transcriber((model, processor), device="cuda")._logits(waveforms[:-1])
    assert found.tolist() == lengths.tolist()
    for row, frames in enumerate(lengths.tolist()):
        assert (logits[row, :frames].float().cpu() - expected[row, :frames]).abs().mean() < 0.05
