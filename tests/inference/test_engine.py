"""TorchEngine against plain Transformers, one utterance at a time."""

import numpy as np
import pytest
import torch
from transformers import (
    GraniteSpeech5FeatureExtractor,
    LasrFeatureExtractor,
    ParakeetFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2ConformerConfig,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from hfasr.decoding.greedy import best_path, labels_to_text
from hfasr.inference.engine import Batch, TorchEngine
from hfasr.models.front_ends import extract, extract_on_device, works_on_device
from hfasr.models.load import input_lengths, load_model
from hfasr.models.mel import FRAMINGS, NORMALIZATIONS, MelFeatureExtractor


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """A hundred clips of 0.05 to 3 s: noise whose loudness and colour change every 80 ms, as speech's do."""
    random, clips = np.random.default_rng(0), []
    for samples in random.integers(800, 48_000, size=100):
        blocks = []
        for _ in range(-(-samples // 1_280)):
            block = random.standard_normal(1_280) * 10 ** random.uniform(-3, -0.5)
            blocks.append(np.convolve(block, random.standard_normal(random.integers(1, 30)), "same"))
        clips.append(np.concatenate(blocks)[:samples].clip(-1, 1).astype(np.float32))
    return clips


def alone(model, processor, waveform: np.ndarray) -> torch.Tensor:
    """Return the log-probs (T, V) of one utterance as a model card says how to get them."""
    waveform = np.pad(waveform, (0, max(0, 1_600 - len(waveform))))
    inputs = processor(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits[0].log_softmax(-1)


@pytest.mark.parametrize("family", ["unispeech", "wav2vec2-group", "quartznet", "citrinet"])
def test_a_hundred_clips_alone_and_in_batches(family, build_model, clips):
    model, processor = build_model(family)
    engine = TorchEngine((model, processor))
    assert not engine.equal_lengths
    order, furthest, symbols = np.random.default_rng(1).permutation(len(clips)), 0.0, set()
    by_hand = [alone(model, processor, clip) for clip in clips]
    # sorted by length as a transcriber has them, and without any order
    for places in [*np.array_split(np.argsort([len(clip) for clip in clips]), 5), *np.array_split(order, 5)]:
        log_probs, lengths = engine.log_probs([clips[place] for place in places])
        paths = best_path(log_probs, lengths, blank=engine.blank)
        for place, row, frames, path in zip(places, log_probs, lengths.tolist(), paths, strict=True):
            expected = by_hand[place]
            assert frames == len(expected)
            furthest = max(furthest, (row[:frames] - expected).abs().max().item())
            symbols |= set(ids := expected.argmax(-1).tolist())
            said = [one for one, before in zip(ids, [None, *ids], strict=False) if one not in (before, engine.blank)]
            assert labels_to_text([token.id for token in path], engine.tokenizer) == labels_to_text(said, engine.tokenizer)
    assert furthest < 2e-5, furthest
    assert len(symbols) > 3


def test_log_probs_are_those_of_prepare_and_forward(build_model, clips):
    engine = TorchEngine(build_model("quartznet"))
    batch = engine.prepare(clips[:3])
    assert isinstance(batch, Batch)
    assert batch.values.device.type == "cpu"
    log_probs, lengths = engine.forward(batch)
    expected, counts = engine.log_probs(clips[:3])
    assert torch.equal(log_probs, expected)
    assert torch.equal(lengths, counts)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))


@pytest.mark.parametrize(
    "extractor",
    [
        ParakeetFeatureExtractor(),
        LasrFeatureExtractor(),
        GraniteSpeech5FeatureExtractor(),
        SeamlessM4TFeatureExtractor(padding_value=1.0),
        MelFeatureExtractor(framing="nemo24"),
        Wav2Vec2FeatureExtractor(return_attention_mask=True),
    ],
    ids=lambda extractor: type(extractor).__name__,
)
def test_features_of_a_row_are_those_that_it_has_alone(extractor, clips):
    """Granite Speech's own extractor lets the padding of a batch into the last frames of a row."""
    rows = [clip for clip in clips[:12] if len(clip) > 1_600]
    name, values, valid = extract(rows, extractor)
    processor = Wav2Vec2Processor.__new__(Wav2Vec2Processor)
    processor.feature_extractor = extractor
    assert input_lengths(processor, torch.tensor([len(row) for row in rows])).tolist() == valid.tolist()
    for row, features, frames in zip(rows, values, valid, strict=True):
        own = extractor([row], sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="pt")
        assert int(own["attention_mask"].sum()) == frames
        torch.testing.assert_close(features[:frames], own[name][0, :frames], atol=1e-4, rtol=0)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_features_of_all_rows_at_once(framing, normalize, clips):
    extractor = MelFeatureExtractor(framing=framing, normalize=normalize, window_length=400, padding_value=0.5)
    rows = [clip for clip in clips[:20] if len(clip) > 500]
    _compare_on_device(extractor, rows, 2e-5)


@pytest.mark.parametrize("do_normalize", [True, False])
def test_normalised_waveforms_of_all_rows_at_once(do_normalize, build_model, clips):
    extractor = build_model("unispeech")[1].feature_extractor
    extractor.do_normalize = do_normalize
    _compare_on_device(extractor, clips[:20], 2e-5)


def _compare_on_device(extractor, rows, tolerance):
    assert works_on_device(extractor)
    name, expected, valid = extract(rows, extractor)
    lengths = torch.tensor([len(row) for row in rows])
    waveforms = torch.zeros(len(rows), int(lengths.max()))
    for row, place in zip(rows, waveforms, strict=True):
        place[: len(row)] = torch.from_numpy(row)
    found_name, found = extract_on_device(waveforms, lengths, extractor)
    assert found_name == name
    assert found.shape == expected.shape
    for row, frames in enumerate(valid.tolist()):
        torch.testing.assert_close(found[row, :frames], expected[row, :frames], atol=tolerance, rtol=0)
        assert torch.equal(found[row, frames:], expected[row, frames:])


def test_precision(build_model, clips):
    pair = build_model("unispeech")
    expected, lengths = TorchEngine(pair).log_probs(clips[:4])
    for precision in ("autocast", "bfloat16"):
        log_probs, _ = TorchEngine(pair, precision=precision).log_probs(clips[:4])
        assert log_probs.dtype == torch.float32
        rounding = [(row[:n] - own[:n]).abs().mean() for row, own, n in zip(log_probs, expected, lengths.tolist(), strict=True)]
        assert 0 < max(rounding) < 0.05
        assert pair[0].dtype == (torch.float32 if precision == "autocast" else torch.bfloat16)


def test_a_model_that_has_transcribed_can_be_trained(tokenizer, clips):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": (8,) * 7}
    # it keeps its table of positions, and makes a longer one when it needs it
    config = Wav2Vec2ConformerConfig(**sizes, position_embeddings_type="relative", max_source_positions=4)
    model, processor = load_model(config, tokenizer)
    TorchEngine((model, processor)).log_probs(clips[:2])
    inputs = processor(clips[0], sampling_rate=16_000, return_tensors="pt")
    model.train()(**inputs, labels=torch.tensor([[5, 6]])).loss.backward()


def test_wrong_arguments_are_told(build_model):
    with pytest.raises(ValueError, match="precision is 'fp8', expected one of auto, float32"):
        TorchEngine("no/model", precision="fp8")
    with pytest.raises(ValueError, match="compile is 'yes', expected one of auto, dynamic"):
        TorchEngine("no/model", compile="yes")
    model, processor = build_model("unispeech")
    processor.feature_extractor.sampling_rate = 8_000
    with pytest.raises(ValueError, match="hears 8000 Hz"):
        TorchEngine((model, processor))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["unispeech", "wav2vec2-group", "quartznet", "citrinet"])
def test_cuda_gives_the_same(family, build_model, clips):
    expected, lengths = TorchEngine(build_model(family), device="cpu").log_probs(clips[:20])
    for precision, tolerance in (("float32", 2e-3), ("auto", 0.3)):
        log_probs, found = TorchEngine(build_model(family), device="cuda", precision=precision).log_probs(clips[:20])
        assert found.tolist() == lengths.tolist()
        for row, frames in enumerate(lengths.tolist()):
            assert (log_probs[row, :frames].cpu() - expected[row, :frames]).abs().mean() < tolerance
