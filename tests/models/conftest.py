"""NeMo's stored tensors, toy tokenizers and tiny random models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nemo_folder(shared) -> Path:
    """Return the folder with NeMo's checkpoints and reference tensors."""
    return shared / "nemo"


@pytest.fixture(scope="session")
def nemo_reference(nemo_folder):
    """Tensors that NeMo 3.0.0 computed, by model name."""
    return lambda name: np.load(nemo_folder / f"{name}.ref.npz")


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory):
    """Phoneme tokenizer whose ids are the places in a list of symbols."""
    from transformers import Wav2Vec2PhonemeCTCTokenizer

    def make(symbols: list[str], **options):
        path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
        path.write_text(json.dumps({symbol: place for place, symbol in enumerate(symbols)}), encoding="utf-8")
        settings = {"do_phonemize": False, "bos_token": None, "eos_token": None, "pad_token": "<pad>", "unk_token": "<unk>"}
        return Wav2Vec2PhonemeCTCTokenizer(str(path), **{**settings, **options})

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer):
    """The new tokenizer: blank first."""
    return make_tokenizer(["<pad>", "<unk>", "d[", "l", "tS", "|"])


@pytest.fixture(scope="session")
def old_tokenizer(make_tokenizer):
    """The tokenizer of the checkpoints: blank last, other order, no l."""
    return make_tokenizer(["ɑ", "tS", "|", "d[", "<unk>", "<pad>"])


@pytest.fixture(scope="session")
def small_blocks() -> list[dict]:
    """A QuartzNet of every kind of block, small enough for float64."""
    return [
        {"filters": 12, "kernel": 5, "stride": 2},
        {"filters": 12, "kernel": 7, "repeat": 2, "residual": True},
        {"filters": 16, "kernel": 9, "repeat": 2, "residual": True},
        {"filters": 16, "kernel": 11, "dilation": 2},
        {"filters": 20, "kernel": 1, "separable": False},
    ]


@pytest.fixture(scope="session")
def waveforms() -> list[np.ndarray]:
    """Noise of 1.0, 0.7 and 1.37 s, not whole numbers of hops."""
    random = np.random.default_rng(0)
    return [0.1 * random.standard_normal(samples).astype(np.float32) for samples in (16_000, 11_234, 21_999)]
