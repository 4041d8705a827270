"""Tiny random models that say many symbols, and recordings of noise."""

import numpy as np
import pytest
import torch
from transformers import SEWConfig, UniSpeechConfig, Wav2Vec2BertConfig, Wav2Vec2Config

from hfasr.audio import write_audio
from hfasr.models.citrinet import CitrinetConfig
from hfasr.models.load import load_model
from hfasr.models.quartznet import QuartzNetConfig
from hfasr.text.vocabulary import build_tokenizer

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
RAW = {**TINY, "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SEW_CONVOLUTIONS = {"conv_dim": (8,) * 7, "conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_kernel": (10, 3, 3, 3, 3, 2, 2)}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer(["ал ээр келди бтсогө"], "character")


@pytest.fixture(scope="session")
def build_model(tokenizer):
    """Family -> (model, processor) with weights under which most frames say a symbol, also those past the end."""
    blocks = [
        {"filters": 24, "kernel": 5, "stride": 2},
        {"filters": 24, "kernel": 7, "repeat": 2, "residual": True, "squeeze_excite": True},
        {"filters": 24, "kernel": 9, "dilation": 2},
    ]
    configs = {
        "quartznet": lambda: QuartzNetConfig(blocks=blocks),
        "citrinet": lambda: CitrinetConfig(blocks=blocks, num_mel_bins=80),
        "unispeech": lambda: UniSpeechConfig(**RAW, **LAYER_NORM),
        "wav2vec2-bert": lambda: Wav2Vec2BertConfig(
            **TINY, vocab_size=len(tokenizer), feature_projection_input_dim=160, conv_depthwise_kernel_size=5
        ),
        "wav2vec2-group": lambda: Wav2Vec2Config(**RAW),
        "wav2vec2-adapter": lambda: Wav2Vec2Config(**RAW, **LAYER_NORM, add_adapter=True),
        "sew": lambda: SEWConfig(**TINY, **SEW_CONVOLUTIONS, squeeze_factor=2, feat_extract_norm="layer"),
    }

    def build(family: str):
        torch.manual_seed(0)
        model, processor = load_model(configs[family](), tokenizer)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        model.lm_head.bias.data[model.config.pad_token_id] = -0.5
        return model, processor

    return build


@pytest.fixture(scope="session")
def checkpoint(build_model, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in build_model("quartznet"):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def waveforms() -> list[np.ndarray]:
    """Noise of several lengths, two of them equal, that changes from moment to moment; the last is too short for a frame."""
    rng = np.random.default_rng(0)
    lengths = (16_000, 11_234, 21_999, 11_234, 30_017, 4_801, 90)
    return [(rng.standard_normal(n) * 0.1 * np.abs(np.sin(np.arange(n) / 700 + n))).astype(np.float32) for n in lengths]


@pytest.fixture(scope="session")
def recordings(waveforms, tmp_path_factory):
    """A folder of audio in several formats and depths, and what is not audio."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "b" / "c").mkdir(parents=True)
    files = ("z.wav", "b/a.FLAC", "b/c/m.mp3", "b/c/o.ogg", "b/p.opus")
    for waveform, name in zip(waveforms, files, strict=False):
        write_audio(folder / name, waveform, format=name.rpartition(".")[2].upper())
    (folder / "b" / "._a.wav").write_bytes(b"what a Mac leaves behind")
    (folder / "b" / "a.txt").write_text("text")
    return folder
