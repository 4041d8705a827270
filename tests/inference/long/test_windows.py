"""Long recordings against the same network over all of them at once."""

import math

import numpy as np
import pytest
import torch
from transformers import UniSpeechConfig

from hfasr.audio import AudioError, write_audio
from hfasr.decoding.greedy import GreedyDecoder, labels_to_text
from hfasr.inference.engine import TorchEngine
from hfasr.inference.long.windows import long_log_probs, quiet_cut, segments, transcribe_long
from hfasr.models.load import load_model


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    places = np.arange(int(seconds * 16_000))
    return (np.random.default_rng(seed).standard_normal(len(places)) * 0.1 * np.abs(np.sin(places / 3000))).astype(np.float32)


@pytest.fixture(scope="module")
def local(build_model, tokenizer):
    """Engines whose frames depend on half a second around them, so that windows must give what the whole gives."""
    model, processor = build_model("quartznet")
    for block in model.base_model.blocks:
        block.squeeze_excite = None
    processor.feature_extractor.normalize = "none"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": (8,) * 7}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = UniSpeechConfig(**sizes, **positions, num_hidden_layers=0, feat_extract_norm="layer", do_stable_layer_norm=True)
    raw, raw_processor = load_model(config, tokenizer)
    for parameter in raw.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    raw_processor.feature_extractor.do_normalize = False
    return {"quartznet": TorchEngine((model, processor)), "unispeech": TorchEngine((raw, raw_processor))}


def joined(pieces) -> torch.Tensor:
    pieces = list(pieces)
    assert [first for first, _ in pieces] == [0, *np.cumsum([len(piece) for _, piece in pieces])[:-1]]
    return torch.cat([piece for _, piece in pieces])


@pytest.mark.parametrize("family", ["quartznet", "unispeech"])
@pytest.mark.parametrize("seconds", [0.05, 3.0, 7.99, 8.0, 8.02, 12.3, 40.003])
def test_windows_join_to_the_whole(family, seconds, local):
    waveform, engine = noise(seconds), local[family]
    blocks = [waveform[start : start + 24_000] for start in range(0, len(waveform), 24_000)]
    for batch_seconds in (1.0, 30.0):
        found = joined(long_log_probs(engine, blocks, window_seconds=8.0, pause_seconds=math.inf, batch_seconds=batch_seconds))
        expected = engine.log_probs([waveform])[0][0]
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-4
        assert len(set(expected.argmax(-1).tolist())) > 1


def test_equal_windows_share_batches_where_padding_would_change_them(local, monkeypatch):
    engine, batches = local["quartznet"], []
    run = engine.log_probs
    monkeypatch.setattr(engine, "equal_lengths", True)
    monkeypatch.setattr(engine, "log_probs", lambda waveforms: (batches.append({len(w) for w in waveforms}), run(waveforms))[1])
    joined(long_log_probs(engine, [noise(40.003)], window_seconds=8.0, pause_seconds=math.inf, batch_seconds=24.0))
    assert all(len(lengths) == 1 for lengths in batches)
    assert len(batches) < 7


@pytest.mark.parametrize("family", ["quartznet", "unispeech"])
def test_what_is_between_silences_stays_in_its_place(family, local):
    """Words planted in silence have the frames of the same words by themselves, moved; boundaries stand between them."""
    engine, decoder = local[family], GreedyDecoder(local[family].blank)
    stride, words, recording = engine.grid.stride, [noise(1.5, seed) for seed in (1, 2, 3)], np.zeros(60 * 16_000, np.float32)
    starts = [stride * frame for frame in (200, 400, 2500)]
    for word, start in zip(words, starts, strict=True):
        recording[start : start + len(word)] = word
    log_probs = joined(long_log_probs(engine, [recording], window_seconds=8.0))
    assert len(log_probs) == len(recording) // stride
    tokens = decoder.decode(log_probs[None], [len(log_probs)])[0][0].tokens
    expected, separator = [], engine.tokenizer.convert_tokens_to_ids("|")
    for word, start in zip(words, starts, strict=True):
        margin = 15 * stride  # what is kept of a silence is shorter or longer by a frame or two
        alone = engine.log_probs([np.pad(word, margin)])
        found = [token for token in decoder.decode(*alone)[0][0].tokens if 12 < token.start_frame < alone[0].shape[1] - 12]
        expected += [(token.id, token.start_frame - 15 + start // stride) for token in found]
    places = {(token.id, token.start_frame) for token in tokens}
    assert len(expected) > 20
    assert set(expected) <= places
    first, second = starts[0] // stride + 75, starts[1] // stride
    assert any(label == separator and first < place < second for label, place in places) or separator in {
        label for label, place in places if first - 5 < place < second + 5
    }


def test_nothing_to_hear_is_blank(local):
    engine = local["quartznet"]
    log_probs = joined(long_log_probs(engine, [np.zeros(100 * 16_000, np.float32)]))
    assert len(log_probs) == 5000
    assert (log_probs.argmax(-1) == engine.blank).all()
    assert log_probs.exp().sum(-1).allclose(torch.ones(5000))


@pytest.mark.parametrize("blank_share", [0.0, 0.2, 0.9])
def test_segments_decode_to_what_the_whole_decodes_to(blank_share):
    rng = np.random.default_rng(0)
    decoder, compared = GreedyDecoder(2), 0
    for trial in range(60):
        frames, longest = int(rng.integers(1, 200)), int(rng.integers(2, 40))
        labels = np.repeat(rng.choice(5, frames, p=_shares(blank_share)), rng.integers(1, 3, frames))
        log_probs = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(trial))
        log_probs[torch.arange(len(labels)), torch.from_numpy(labels)] += 20
        pieces, at = [], 0
        while at < len(labels):
            pieces.append((at + 7, log_probs[at : (at := at + int(rng.integers(1, 30)))]))
        found, place = [], 7
        for first, part in segments(pieces, 2, longest):
            assert first == place
            assert 0 < len(part) <= longest
            place += len(part)
            tokens = decoder.decode(part[None], [len(part)])[0][0].tokens
            found += [(token.id, token.start_frame + first - 7, token.end_frame + first - 7) for token in tokens]
        whole = [(token.id, token.start_frame, token.end_frame) for token in decoder.decode(log_probs[None], [len(labels)])[0][0].tokens]
        # a label that holds for all of the second half leaves no room for a cut
        if max((end - start for _, start, end in whole), default=0) < longest - longest // 2:
            compared += 1
            assert found == whole
    assert compared > 20


def _shares(blank: float) -> list[float]:
    return [(1 - blank) / 4] * 2 + [blank] + [(1 - blank) / 4] * 2


def test_cuts_are_in_the_longest_pause():
    assert quiet_cut(np.array([1, 0, 1, 0, 0, 0, 1, 0, 0]), 0) == 4
    assert quiet_cut(np.array([1, 1, 3, 3]), 0) == 2
    assert quiet_cut(np.array([1, 1]), 0) == 2


@pytest.mark.parametrize("split", ["windows", "silence"])
def test_a_file_is_transcribed_segment_by_segment(split, local, tmp_path):
    engine, recording = local["quartznet"], np.zeros(100 * 16_000, np.float32)
    for seed, start in enumerate((5, 30, 33, 70)):
        recording[start * 16_000 :][: 2 * 16_000] = noise(2.0, seed)
    write_audio(tmp_path / "a.wav", recording)
    parts = list(transcribe_long(engine, GreedyDecoder(engine.blank), tmp_path / "a.wav", split=split, window_seconds=8.0))
    tokens = [(token.id, first + token.start_frame) for first, found in parts for token in found[0].tokens]
    places = [place * engine.grid.frame_seconds for _, place in tokens]
    assert places == sorted(places)
    assert all(any(start - 0.4 < place < start + 2.4 for start in (5, 30, 33, 70)) or split == "windows" for place in places)
    assert len(labels_to_text([label for label, _ in tokens], engine.tokenizer)) > 50
    assert len(parts) > 1
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-1000])
    with pytest.raises(AudioError, match="cut short"):
        list(transcribe_long(engine, GreedyDecoder(engine.blank), tmp_path / "a.wav", split=split))


def test_no_more_is_read_than_is_needed(local):
    """However long a recording is, what waits for the network is bounded."""
    taken = 0

    def blocks():
        nonlocal taken
        while True:
            taken += 10
            yield noise(10.0, taken)

    for first, piece in long_log_probs(local["quartznet"], blocks(), window_seconds=8.0, batch_seconds=16.0):
        assert taken < (first + len(piece)) * 0.02 + 4 * 16 + 8 + 2 * 10 + 1
        if first > 10_000:
            break


def test_what_is_refused(local):
    engine, decoder = local["quartznet"], GreedyDecoder(0)
    for options, message in (
        ({"split": "words"}, "split is 'words', expected one of windows, silence"),
        ({"window_seconds": 2}, r"window_seconds is 2, expected at least 6"),
        ({"window_seconds": math.inf}, "window_seconds is inf"),
        ({"window_seconds": 0.5, "split": "silence"}, r"at most 0\.5 s"),
    ):
        with pytest.raises(ValueError, match=message):
            list(transcribe_long(engine, decoder, noise(1.0), **options))
