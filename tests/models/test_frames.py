"""Where the frames of every family are, by what they hear: a gradient, or what a click in noise changes.

Shapes: S samples, T frames, V vocabulary.
"""

import numpy as np
import pytest
import torch
from tiny_models import CONV, EACH_FAMILY, tiny
from transformers import (
    GraniteSpeech5FeatureExtractor,
    LasrFeatureExtractor,
    ParakeetFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from hfasr.models.frames import FrameGrid, frame_grid
from hfasr.models.front_ends import extract
from hfasr.models.load import input_lengths, output_lengths
from hfasr.models.mel import MelFeatureExtractor

EXTRACTORS = {
    "parakeet_ctc": lambda: ParakeetFeatureExtractor(feature_size=16),
    "lasr_ctc": lambda: LasrFeatureExtractor(feature_size=16),
    "granite_speech5_ctc": lambda: GraniteSpeech5FeatureExtractor(num_mel_bins=16),
    "wav2vec2-bert": lambda: SeamlessM4TFeatureExtractor(num_mel_bins=8, feature_size=8, padding_value=1.0),
}
# the published sizes, for tests/tiny_models.py leaves some of them out
RELEASED = {
    "data2vec-audio": {"num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19},
    "granite_speech5_ctc": {"subsample_layers": [0, 1]},
}
ADAPTERS = [(family, {"add_adapter": True, "num_adapter_layers": 2}) for family in ("wav2vec2 stable", "wav2vec2-bert")]
MEL = [(family, {"framing": framing, "window_length": 400}) for family in CONV for framing in ("current", "nemo24")]
CASES = [*((family, RELEASED.get(family, {})) for family in EACH_FAMILY), *ADAPTERS, *MEL]


# what else than its own surroundings a frame hears: attention, positions, convolutions between frames
WIDE = ("out_proj", "o_proj", "linear_out", "attention.output.dense", "pos_conv", "pointwise_conv2", "pointwise_lin2")


def build(family: str, options: dict):
    """Return a tiny model whose frames hear both sides of their centre alike, and a processor without tokenizer."""
    if family in CONV:
        model, extractor = tiny(family), MelFeatureExtractor(feature_size=16, **options)
    else:
        model, extractor = tiny(family, **options), EXTRACTORS.get(family, lambda: Wav2Vec2FeatureExtractor(do_normalize=False))()
    for name, weight in model.named_parameters():
        if weight.ndim == 3:
            weight.data += weight.data.flip(-1)
        elif weight.ndim == 4:
            weight.data += weight.data.flip(-2)
        if any(part in name for part in WIDE) and not name.endswith("original1"):  # a direction, which may not be 0
            torch.nn.init.zeros_(weight)
    processor = Wav2Vec2Processor.__new__(Wav2Vec2Processor)
    processor.feature_extractor = extractor
    return model, processor


def logits_of(model, extractor, waveform: np.ndarray) -> torch.Tensor:
    name, values, lengths = extract([waveform], extractor)
    with torch.inference_mode():
        return model(**{name: values}).logits[0, : int(output_lengths(model, torch.from_numpy(lengths)))]


@pytest.mark.parametrize(
    ("family", "options"), CASES, ids=[f"{family}-{len(options)}-{place}" for place, (family, options) in enumerate(CASES)]
)
def test_a_click_moves_the_frame_that_the_grid_names(family, options):
    model, processor = build(family, options)
    extractor, grid, random = processor.feature_extractor, frame_grid(model, processor), np.random.default_rng(0)
    noise = (0.1 * random.standard_normal(40 * grid.stride + 5)).astype(np.float32)
    before, errors = logits_of(model, extractor, noise), []
    assert input_lengths(processor, torch.tensor([len(noise)])).tolist() == extract([noise], extractor)[2].tolist()
    for frame in range(7, 33, 3):
        expected = frame + random.uniform(-0.5, 0.5)
        first = round(grid.centre + expected * grid.stride) - 20
        clicked = noise.copy()
        clicked[first : first + 40] += (0.5 * random.standard_normal(40)).astype(np.float32)
        # a click changes the loudness too, by which the features of all frames are divided
        moved = (logits_of(model, extractor, clicked) - before).norm(dim=-1)
        moved = (moved - 3 * moved.median()).clamp(min=0).square()
        errors.append(float((moved * torch.arange(len(moved))).sum() / moved.sum()) - expected)
    pairs = family.startswith("sew")  # it squeezes two frames into one, which both hear
    assert abs(np.mean(errors)) < (0.3 if pairs else 0.15), errors
    assert np.abs(errors).max() < (1.25 if pairs else 0.75), errors


def test_seconds_and_frames():
    grid = FrameGrid(stride=320, centre=200.0)
    assert grid.frame_seconds == 0.02
    # frame 1 is centred on sample 520, and begins 160 samples before
    assert grid.seconds(1) == 360 / 16_000
    assert grid.seconds(0) == 40 / 16_000
    assert FrameGrid(stride=320, centre=0.0).seconds(0) == 0.0


def test_unevenly_spaced_frames_are_refused():
    model, processor = build("quartznet", {})
    model._get_feat_extract_output_lengths = lambda lengths: lengths * 3 // 7
    with pytest.raises(ValueError, match="QuartzNetForCTC has 373.31 samples a frame"):
        frame_grid(model, processor)
