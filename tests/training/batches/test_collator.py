import json

import numpy as np
import pytest
import torch
from transformers import ParakeetFeatureExtractor, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from hfasr.audio import load_audio, write_audio
from hfasr.models.front_ends import extract
from hfasr.models.load import load_model, output_lengths
from hfasr.models.mel import MelFeatureExtractor
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.batches.collator import CTCCollator
from hfasr.training.batches.inputs import input_of, model_inputs
from hfasr.training.batches.shapes import Shapes
from hfasr.training.loss import ctc_loss_sum


@pytest.mark.parametrize("base", ["quartznet-small", "unispeech-tiny", "wav2vec2-tiny"])
def test_collator(base, tmp_path):
    tokenizer = build_tokenizer(["a b c"])
    _, processor = load_model(base, tokenizer)
    waveforms = [0.1 * np.random.default_rng(n).standard_normal(16_000 + 4_000 * n).astype(np.float32) for n in range(3)]
    rows = []
    for n, waveform in enumerate(waveforms):
        write_audio(tmp_path / f"{n}.wav", waveform)
        rows.append({"id": str(n), "audio": {"path": str(tmp_path / f"{n}.wav"), "bytes": None}, "labels": [2, 3, 4][: n + 1]})
    (tmp_path / "1.wav").write_bytes(b"broken")
    collator = CTCCollator(processor, tmp_path / "quarantine.jsonl")
    for _ in range(2):
        batch = collator(rows)
    assert batch["labels"].tolist() == [[2, -100, -100], [-100] * 3, [2, 3, 4]]
    assert batch["label_lengths"].tolist() == [1, 0, 3]
    assert batch["input_lengths"].dtype == batch["label_lengths"].dtype == np.int64
    assert "attention_mask" not in batch
    name = processor.feature_extractor.model_input_names[0]
    for n in (0, 2):
        alone = processor.feature_extractor(load_audio(tmp_path / f"{n}.wav"), sampling_rate=16_000, return_tensors="pt")[name][0]
        assert len(alone) == batch["input_lengths"][n]
        torch.testing.assert_close(batch[name][n, : len(alone)], alone, atol=1e-4, rtol=0)
        assert not batch[name][n, len(alone) :].any()
    (line,) = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "1"
    assert (collator([])["labels"] == -100).all()
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    with pytest.raises(OSError, match="none of the 6 clips"):
        collator(rows * 2)


@pytest.mark.parametrize(
    "extractor",
    [
        Wav2Vec2FeatureExtractor(return_attention_mask=True),
        Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=False, padding_value=0.5),
        MelFeatureExtractor(feature_size=16),
        SeamlessM4TFeatureExtractor(padding_value=1.0),
        ParakeetFeatureExtractor(feature_size=16),
    ],
    ids=lambda extractor: type(extractor).__name__,
)
def test_front_ends_equal_the_extractors(extractor):
    waveforms = [(0.1 * np.random.default_rng(n).standard_normal(16_000 + 3_333 * n) + 0.01).astype(np.float32) for n in (2, 0, 1)]
    name, values, lengths = extract(waveforms, extractor)
    expected = extractor(waveforms, sampling_rate=16_000, padding=True, return_tensors="pt")
    assert lengths.tolist() == expected.attention_mask.sum(-1).tolist()
    for row, length, theirs in zip(values, lengths, expected[name], strict=True):
        torch.testing.assert_close(row[:length], theirs[:length], atol=1e-4, rtol=0)
        assert (row[length:] == extractor.padding_value).all()


def rows_in(folder, seconds: list[float]) -> list[dict]:
    rows = []
    for n, one in enumerate(seconds):
        write_audio(folder / f"{n}.wav", 0.1 * np.random.default_rng(n).standard_normal(round(one * 16_000)), 16_000)
        rows.append({"id": str(n), "audio": {"path": str(folder / f"{n}.wav"), "bytes": None}, "labels": [2, 3, 4][: n + 1]})
    return rows


@pytest.mark.parametrize("base", ["unispeech-tiny", "quartznet-small"])
def test_a_batch_filled_up_to_its_shape_has_the_same_loss(base, tmp_path):
    overrides = {"num_hidden_layers": 2, "conv_dim": (8,) * 7} if base == "unispeech-tiny" else {}
    model, processor = load_model(base, build_tokenizer(["a b c"]), config_overrides=overrides)
    rows = rows_in(tmp_path, [1.3, 0.7, 1.0])
    shapes = Shapes((1.125, 1.605), (9, 5))
    plain, filled = CTCCollator(processor)(rows), CTCCollator(processor, shapes=shapes)(rows)
    assert len(input_of(filled)) == 5
    assert filled["label_lengths"].tolist() == [1, 2, 3, 0, 0]
    assert filled["input_lengths"].tolist()[:3] == plain["input_lengths"].tolist()
    assert filled["labels"].shape == (5, 3)
    losses = []
    for batch in (plain, filled):
        frames = output_lengths(model, torch.from_numpy(batch["input_lengths"]))
        logits = model(**model_inputs(batch, masked=True)).logits
        if batch is filled and base == "unispeech-tiny":
            assert logits.shape[1] % 8 == 0
        assert logits.isfinite().all()
        losses.append(ctc_loss_sum(logits, batch["labels"], frames, 0, zero_infinity=True))
    torch.testing.assert_close(*losses, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("extractor", [Wav2Vec2FeatureExtractor(), MelFeatureExtractor(), SeamlessM4TFeatureExtractor()])
def test_only_the_shapes_occur(extractor, tmp_path):
    _, processor = load_model("wav2vec2-tiny", build_tokenizer(["a b c"]))
    processor.feature_extractor = extractor
    rows = rows_in(tmp_path, [0.3, 0.9, 0.5, 1.2])
    collator = CTCCollator(processor, shapes=Shapes((0.645, 1.285), (4, 2)))
    found = {tuple(input_of(collator(batch)).shape[:2]) for batch in ([rows[0]], [rows[0], rows[2]], rows[1:2], [rows[1], rows[3]], [])}
    assert len(found) == 2
    if not isinstance(extractor, Wav2Vec2FeatureExtractor):
        assert all(width % 8 == 0 for _, width in found)
    (tmp_path / "1.wav").unlink()
    lost = collator([rows[0], rows[1], rows[2]])  # in a batch of the short
    assert tuple(input_of(lost).shape[:2]) in found
    assert lost["label_lengths"].tolist() == [1, 0, 3, 0]
    (tmp_path / "3.wav").unlink()
    write_audio(tmp_path / "3.wav", np.zeros(32_000), 16_000)  # longer than any shape: its header lied
    assert input_of(collator(rows[3:])).shape[0] == 1
