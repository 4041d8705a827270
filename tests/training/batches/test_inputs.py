import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, inputs_of, tiny
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from hfasr.models.load import load_model
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.batches.inputs import is_padded, model_inputs, takes_mask


def batch_of(model, lengths: list[int]) -> dict:
    return {**inputs_of(model, len(lengths)), "labels": torch.ones(len(lengths), 2), "input_lengths": np.array(lengths),
            "label_lengths": np.full(len(lengths), 2)}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_is_that_of_an_extractor(family):
    model = tiny(family)
    whole = next(iter(inputs_of(model).values())).shape[1]
    batch = batch_of(model, [whole, whole * 3 // 4])
    arguments = model_inputs(batch, masked=True)
    (name,) = set(arguments) - {"attention_mask"}
    assert arguments["attention_mask"].sum(-1).tolist() == [whole, whole * 3 // 4]
    with torch.no_grad():
        expected = model(**{name: batch[name], "attention_mask": arguments["attention_mask"].int()}).logits
        torch.testing.assert_close(model(**arguments).logits, expected)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "parakeet_ctc"])
def test_without_padding_no_mask_is_needed(family):
    model = tiny(family)
    whole = next(iter(inputs_of(model).values())).shape[1]
    batch = batch_of(model, [whole, whole])
    assert not is_padded(batch)
    arguments = model_inputs(batch, masked=True)
    assert "attention_mask" not in arguments
    with torch.no_grad():
        expected = model(**arguments, attention_mask=torch.ones(2, whole, dtype=torch.int32)).logits
        torch.testing.assert_close(model(**arguments).logits, expected, atol=1e-5, rtol=1e-5)


def test_who_takes_a_mask():
    tokenizer = build_tokenizer(["a b"])
    for base, masked in (("wav2vec2-tiny", False), ("unispeech-tiny", True), ("quartznet-small", True)):
        model, processor = load_model(base, tokenizer)
        assert takes_mask(model, processor.feature_extractor) is masked
    batch = {"input_values": torch.zeros(2, 800), "input_lengths": np.array([800, 500]), "label_lengths": np.array([1, 1])}
    assert set(model_inputs(batch, masked=False)) == {"input_values"}
    assert takes_mask(tiny("wav2vec2-bert"), SeamlessM4TFeatureExtractor())
    assert not takes_mask(tiny("wav2vec2"), Wav2Vec2FeatureExtractor(return_attention_mask=False))
