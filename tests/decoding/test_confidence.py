"""Confidences of frames, symbols and words against their definitions, written out."""

import math

import numpy as np
import pytest
import torch

from hfasr.decoding.beam import BeamDecoder
from hfasr.decoding.confidence import AGGREGATES, SCALES, Confidence, frame_confidences, word_confidences
from hfasr.decoding.greedy import GreedyDecoder, best_path
from hfasr.decoding.words import split_words
from hfasr.text.vocabulary import build_tokenizer


def entropy(probabilities: list[float], measure: str, alpha: float) -> float:
    if alpha == 1:
        return -sum(p * math.log(p) for p in probabilities)
    if measure == "tsallis":
        return (1 - sum(p**alpha for p in probabilities)) / (alpha - 1)
    return -sum(p**alpha * math.log(p**alpha) for p in probabilities)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("measure", "alpha"), [("tsallis", 0.5), ("tsallis", 2.0), ("gibbs", 1 / 3), ("gibbs", 0.5), ("gibbs", 1.0)])
def test_entropies_equal_their_definition(measure, alpha, scale):
    log_probs = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    found = frame_confidences(log_probs, Confidence(measure, alpha=alpha, scale=scale))
    most = entropy([1 / 7] * 7, measure, alpha)
    for row, confidence in zip(log_probs.exp().double().reshape(-1, 7).tolist(), found.flatten().tolist(), strict=True):
        some = entropy(row, measure, alpha)
        expected = 1 - some / most if scale == "linear" else (math.exp(-some) - math.exp(-most)) / (1 - math.exp(-most))
        assert confidence == pytest.approx(min(1, max(0, expected)), abs=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("measure", ["max", "tsallis", "gibbs"])
def test_a_sure_frame_has_1_and_one_that_knows_nothing_0(measure, scale):
    log_probs = torch.tensor([[100.0, 0, 0, 0], [0, 0, 0, 0]]).log_softmax(-1)
    assert frame_confidences(log_probs, Confidence(measure, scale=scale)).tolist() == pytest.approx([1, 0], abs=1e-5)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_symbols_have_the_mean_of_their_frames_and_words_join_their_symbols(aggregate):
    tokenizer = build_tokenizer(["аб а"], "character")
    vocab = tokenizer.get_vocab()
    path = [vocab[symbol] for symbol in ("<pad>", "а", "а", "б", "|", "<pad>", "а", "а")]
    best = [0.9, 0.8, 0.6, 0.7, 0.9, 0.9, 0.5, 0.9]
    probabilities = np.full((1, 8, len(vocab)), np.nan)
    for frame, (label, share) in enumerate(zip(path, best, strict=True)):
        probabilities[0, frame] = (1 - share) / (len(vocab) - 1)
        probabilities[0, frame, label] = share
    decoder = GreedyDecoder(0, Confidence("max", aggregate=aggregate))
    (hypothesis,) = decoder.decode(torch.tensor(probabilities).log().float(), [8])[0]
    scaled = [(share * len(vocab) - 1) / (len(vocab) - 1) for share in best]
    symbols = [np.mean(scaled[1:3]), scaled[3], scaled[4], np.mean(scaled[6:8])]
    assert hypothesis.confidences == pytest.approx(symbols, abs=1e-5)
    assert hypothesis.score == pytest.approx(np.log(best).sum(), abs=1e-4)
    join = {"mean": np.mean, "min": np.min, "product": np.prod}[aggregate]
    words = word_confidences(hypothesis, split_words(hypothesis.tokens, tokenizer), aggregate)
    assert words == pytest.approx([join(symbols[:2]), symbols[3]], abs=1e-5)


def test_greedy_decoding_is_the_best_path_and_tells_no_confidence_where_none_is_wanted():
    log_probs = torch.randn(3, 30, 6, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
    lengths = torch.tensor([30, 1, 0])
    for decoder in (GreedyDecoder(4), GreedyDecoder(4, None), GreedyDecoder(4, "gibbs")):
        found = decoder.decode(log_probs, lengths)
        assert [list(row[0].tokens) for row in found] == best_path(log_probs, lengths, blank=4)
        assert [len(row[0].confidences) for row in found] == [len(row[0].tokens) if decoder.confidence else 0 for row in found]
    none = GreedyDecoder(4, None).decode(log_probs, lengths)[0][0]
    assert word_confidences(none, split_words(none.tokens[:0], build_tokenizer(["а"], "character"))) == []


def test_the_beam_is_less_sure_of_a_symbol_that_its_frame_thinks_unlikely():
    pytest.importorskip("flashlight.lib.text", reason="needs flashlight-text: pip install 'hfasr[lm]'")
    tokenizer = build_tokenizer(["аб"], "character")
    frames = torch.tensor([[[0.02, 0.02, 0.90, 0.06], [0.02, 0.02, 0.50, 0.46]]]).log()
    decoder = BeamDecoder(tokenizer, 0, hotwords=["аб"], hotword_weight=4.0, confidence="max")
    (hypothesis,) = decoder.decode(frames, [2])[0]
    assert [(token.id, token.start_frame, token.end_frame) for token in hypothesis.tokens] == [(2, 0, 1), (3, 1, 2)]
    (greedy,) = GreedyDecoder(0, "max").decode(frames, [2])[0]
    assert hypothesis.confidences == pytest.approx([(0.9 * 4 - 1) / 3, (0.5 * 4 - 1) / 3 * 0.46 / 0.5], abs=1e-5)
    assert len(greedy.tokens) == 1


@pytest.mark.parametrize("wrong", [{"measure": "best"}, {"scale": "log"}, {"aggregate": "sum"}, {"alpha": 0}])
def test_unknown_settings_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Confidence(**wrong)
