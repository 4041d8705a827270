import itertools

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import ParakeetTokenizer

from hfasr.decoding.greedy import GreedyDecoder, best_path, collapse, decode_frames, labels_to_text
from hfasr.text.vocabulary import build_tokenizer


def test_collapse_equals_the_definition_on_every_short_path():
    for path in itertools.product(range(3), repeat=6):
        expected = [label for label, previous in zip(path, (None, *path), strict=False) if label != previous and label != 0]
        tokens = collapse(path, blank=0)
        assert [token.id for token in tokens] == expected
        for token in tokens:
            assert set(path[token.start_frame : token.end_frame]) == {token.id}


def test_best_path_stops_at_the_length_and_takes_any_blank():
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 1, 2, 0, 0, 1]]), 3).float()
    assert [token.id for token in best_path(logits, [4], blank=2)[0]] == [1, 0]
    assert [token.id for token in best_path(logits.numpy(), blank=0)[0]] == [1, 2, 1]
    with pytest.raises(ValueError, match="blank id 7"):
        best_path(logits, blank=7)


def test_a_fast_tokenizer_that_joins_repeats_itself_keeps_those_between_blanks_and_every_space():
    # as an imported NeMo model has it: one id a character, the space among them
    alphabet = ["<pad>", *" 'aehlo"]
    backend = Tokenizer(models.BPE(vocab={symbol: place for place, symbol in enumerate(alphabet)}, merges=[]))
    backend.decoder = decoders.Fuse()
    tokenizer = ParakeetTokenizer(tokenizer_object=backend, pad_token="<pad>", unk_token=None)
    path = "  hhe__ll_lo__  _ _ a_a' _"
    frames = np.array([[alphabet.index("<pad>" if symbol == "_" else symbol) for symbol in path]])
    assert decode_frames(frames, tokenizer, blank=0) == [" hello   aa' "]
    assert labels_to_text([6, 6], tokenizer) == "ll"
    assert tokenizer.decode([6, 6]) == "l"


@pytest.mark.parametrize(
    ("unit", "target"),
    [("phoneme", "d[ oe | k e l d[ i | i"), ("character", "ал ээр келди"), ("character", "界界好"), ("sentencepiece", "ал ээр келлди")],
)
def test_frames_give_the_target_and_padding_gives_nothing(unit, target):
    tokenizer = build_tokenizer([target], unit, vocab_size=11 if unit == "sentencepiece" else None)
    labels = tokenizer(target).input_ids
    frames = [label for label in labels for label in (label, label, tokenizer.pad_token_id)]
    padded = np.array([frames + [-100] * 5, [tokenizer.pad_token_id] * len(frames) + [-100] * 5])
    assert decode_frames(padded, tokenizer, tokenizer.pad_token_id) == [target, ""]
    assert labels_to_text([*labels, -100, -100], tokenizer) == target


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_labels_of_a_large_vocabulary_in_half_precision(dtype):
    log_probs = torch.full((1, 3, 5000), -9.0, dtype=dtype)
    log_probs[0, range(3), [4321, 0, 2049]] = 0
    assert [token.id for token in GreedyDecoder(0).decode(log_probs, [3])[0][0].tokens] == [4321, 2049]
