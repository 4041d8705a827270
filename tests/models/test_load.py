"""load_model over families: rows of the head, processors, lengths, and loading where hfasr is not installed."""

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
from itertools import groupby

import numpy as np
import pytest
import torch
from nemo_files import write_nemo
from transformers import (
    AutoModelForCTC,
    AutoProcessor,
    BertConfig,
    HubertConfig,
    SeamlessM4TFeatureExtractor,
    SEWConfig,
    UniSpeechConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2BertProcessor,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    WavLMConfig,
)

from hfasr.models.citrinet import CitrinetConfig
from hfasr.models.head import fit_head
from hfasr.models.load import BUILT_IN, encoder_of, freeze_feature_encoder, load_model, model_config, output_lengths
from hfasr.models.mel import MelFeatureExtractor
from hfasr.models.quartznet import QuartzNetConfig

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 6,
    "pad_token_id": 5,
    "bos_token_id": None,
    "eos_token_id": None,
}
CONVOLUTIONS = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def tiny_config(family, blocks):
    if family == "quartznet":
        return QuartzNetConfig(blocks=blocks, vocab_size=6, pad_token_id=5)
    if family == "citrinet":
        blocks = [{**block, "stride_last": True, "squeeze_excite": True} for block in blocks]
        return CitrinetConfig(blocks=[*blocks[:2], {**blocks[2], "stride": 2}, *blocks[3:]], vocab_size=6, pad_token_id=5)
    if family == "wav2vec2-bert":
        return Wav2Vec2BertConfig(**TINY, feature_projection_input_dim=160, conv_depthwise_kernel_size=5)
    if family == "sew":
        return SEWConfig(**TINY, **CONVOLUTIONS, conv_stride=(5, 2, 2, 2, 2, 2, 2), conv_kernel=(10, 3, 3, 3, 3, 2, 2), squeeze_factor=2)
    options = {
        "wav2vec2": (Wav2Vec2Config, {}),
        "wav2vec2-adapter": (Wav2Vec2Config, {"add_adapter": True, **LAYER_NORM}),
        "unispeech": (UniSpeechConfig, LAYER_NORM),
        "wavlm": (WavLMConfig, {}),
        "hubert": (HubertConfig, LAYER_NORM),
    }
    config_class, more = options[family]
    return config_class(**TINY, **CONVOLUTIONS, **more)


FAMILIES = ["quartznet", "citrinet", "wav2vec2", "wav2vec2-adapter", "unispeech", "wavlm", "hubert", "sew", "wav2vec2-bert"]
LOADED_AFRESH = ["wav2vec2", "unispeech", "wav2vec2-bert", "quartznet", "citrinet"]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, small_blocks, old_tokenizer, waveforms):
    """Saved models with random weights and the old tokenizer, by family."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        torch.manual_seed(0)
        model, processor = load_model(tiny_config(family, small_blocks), old_tokenizer)
        # a head that says many symbols: large weights over hidden states without their mean
        batch = processor(waveforms[0], sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder_of(model)(**batch).last_hidden_state[0]
            torch.nn.init.normal_(model.lm_head.weight)
            model.lm_head.bias.copy_(-(model.lm_head.weight @ hidden.mean(0)))
        model.save_pretrained(root / family)
        processor.save_pretrained(root / family)
    return root


def logits_of(model, processor, waveforms):
    batch = processor(waveforms, sampling_rate=16_000, return_tensors="pt", padding=True)
    with torch.no_grad():
        return model(**batch).logits, batch


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_shared_symbols_are_kept(family, checkpoints, tokenizer, waveforms):
    old_model, old_processor = load_model(checkpoints / family)
    model, processor = load_model(checkpoints / family, tokenizer)
    # new: <pad> <unk> d[ l tS |     old: ɑ tS | d[ <unk> <pad>
    kept = {0: 5, 1: 4, 2: 3, 4: 1, 5: 2}
    for new, old in kept.items():
        assert torch.equal(model.lm_head.weight[new], old_model.lm_head.weight[old])
        assert model.lm_head.bias[new] == old_model.lm_head.bias[old]
    for old, new in ((old_model.lm_head.weight, model.lm_head.weight[3]), (old_model.lm_head.bias, model.lm_head.bias[3])):
        spoken, blank = old[:4].detach().numpy(), old[5].detach().numpy()  # not <unk>
        mean = (spoken.mean(0) + blank) / 2
        assert (np.abs(new.detach().numpy() - mean) <= 1.5 * spoken.std(0)).all()
        assert not np.array_equal(new.detach().numpy(), mean)
    assert model.lm_head.out_features == model.config.vocab_size == len(tokenizer) == 6
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    assert (model.config.bos_token_id, model.config.eos_token_id) == (None, None)
    assert model.config.kept_symbols == ["<unk>", "d[", "tS", "|"]
    assert (model.config.paired_symbols, model.config.mean_symbols) == ({}, 1)
    old_logits, logits = logits_of(old_model, old_processor, waveforms)[0], logits_of(model, processor, waveforms)[0]
    assert torch.allclose(logits[..., list(kept)], old_logits[..., list(kept.values())], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_lengths_are_those_of_the_logits(family, checkpoints):
    model, processor = load_model(checkpoints / family)
    random = np.random.default_rng(0)
    for samples in (6_400, 8_000, 8_321, 9_999):
        logits, batch = logits_of(model, processor, 0.1 * random.standard_normal(samples).astype(np.float32))
        main = batch[model.main_input_name]
        lengths = output_lengths(model, torch.tensor([main.shape[1]]))
        assert lengths.dtype == torch.int64
        assert lengths.tolist() == [logits.shape[1]]


def test_length_of_nothing_is_zero(checkpoints):
    model, _ = load_model(checkpoints / "wav2vec2")
    assert output_lengths(model, torch.tensor([0, 100, 400, 719, 720])).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("family", "processor_class", "extractor_class", "mask"),
    [
        ("quartznet", Wav2Vec2Processor, MelFeatureExtractor, True),
        ("citrinet", Wav2Vec2Processor, MelFeatureExtractor, True),
        ("wav2vec2", Wav2Vec2Processor, Wav2Vec2FeatureExtractor, False),
        ("unispeech", Wav2Vec2Processor, Wav2Vec2FeatureExtractor, True),
        ("wav2vec2-bert", Wav2Vec2BertProcessor, SeamlessM4TFeatureExtractor, True),
    ],
)
def test_processor_of_each_kind(family, processor_class, extractor_class, mask, checkpoints):
    _, processor = load_model(checkpoints / family)
    assert type(processor) is processor_class
    assert type(processor.feature_extractor) is extractor_class
    assert processor.feature_extractor.return_attention_mask is mask
    assert ("attention_mask" in processor(np.zeros(16_000, np.float32), sampling_rate=16_000)) is mask


def test_published_feature_extractor_is_kept_but_for_a_missing_mask(checkpoints, tmp_path, tokenizer):
    model, processor = load_model(checkpoints / "unispeech")
    model.save_pretrained(tmp_path)
    processor.feature_extractor.do_normalize = False
    processor.feature_extractor.return_attention_mask = False
    processor.save_pretrained(tmp_path)
    extractor = load_model(tmp_path, tokenizer)[1].feature_extractor
    assert (extractor.do_normalize, extractor.return_attention_mask) == (False, True)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_names(name, tokenizer):
    with torch.device("meta"):
        configuration = BUILT_IN[name]()
        model = AutoModelForCTC.from_config(configuration)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    small = name.endswith(("-small", "-tiny"))
    assert parameters <= 1_300_000 or not small
    if small:
        model, processor = load_model(name, tokenizer, config_overrides={"ctc_zero_infinity": True})
        assert model.config.ctc_zero_infinity
        assert not model.training
        assert logits_of(model, processor, np.zeros(16_000, np.float32))[0].shape[-1] == len(tokenizer)


def test_front_end_of_the_convolutional_families(small_blocks, tokenizer):
    for config_class, expected in ((QuartzNetConfig, (64, 320, 160)), (CitrinetConfig, (80, 400, 160))):
        extractor = load_model(config_class(blocks=small_blocks), tokenizer)[1].feature_extractor
        assert (extractor.feature_size, extractor.window_length, extractor.hop_length) == expected


def test_a_configuration_need_not_tell_the_size_of_the_vocabulary(tokenizer):
    config = Wav2Vec2BertConfig(**{**TINY, "vocab_size": None}, feature_projection_input_dim=160, conv_depthwise_kernel_size=5)
    model, _ = load_model(config, tokenizer)
    assert model.config.vocab_size == model.lm_head.out_features == len(tokenizer)


def test_configuration_is_not_changed(small_blocks, tokenizer):
    config = QuartzNetConfig(blocks=small_blocks, vocab_size=99)
    model, _ = load_model(config, tokenizer, config_overrides={"dropout": 0.5})
    assert (config.vocab_size, config.dropout) == (99, 0.0)
    assert (model.config.vocab_size, model.quartznet.blocks[0].dropout.p) == (6, 0.5)


def test_overrides_reach_a_checkpoint(checkpoints, tokenizer):
    model, _ = load_model(checkpoints / "unispeech", tokenizer, config_overrides={"mask_time_prob": 0.75, "final_dropout": 0.3})
    assert model.config.mask_time_prob == 0.75
    assert model.dropout.p == 0.3


def test_base_without_head_keeps_nothing(checkpoints, tmp_path, tokenizer, caplog):
    model, processor = load_model(checkpoints / "wav2vec2")
    model.wav2vec2.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "hfasr"):
        new, _ = load_model(tmp_path, tokenizer)
    assert (new.config.kept_symbols, new.config.paired_symbols, new.config.mean_symbols) == ([], {}, 0)
    assert "all new" in caplog.text
    assert not new.lm_head.bias.any()
    expected = model.wav2vec2.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in new.wav2vec2.state_dict().items())
    with pytest.raises(ValueError, match="has no CTC head yet"):
        load_model(tmp_path)


def test_head_without_tokenizer_keeps_nothing(checkpoints, tmp_path, tokenizer, caplog):
    load_model(checkpoints / "wav2vec2")[0].save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "hfasr"):
        model, processor = load_model(tmp_path, tokenizer)
    assert "no row of the head is kept" in caplog.text
    assert model.config.kept_symbols == []
    assert not processor.feature_extractor.return_attention_mask
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_model(tmp_path)


def test_damaged_checkpoint_is_told_in_one_sentence(checkpoints, tmp_path):
    shutil.copytree(checkpoints / "wav2vec2", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:9999])
    with pytest.raises(ValueError, match="cut: its weights are no whole file"):
        load_model(tmp_path / "cut")
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    shutil.copy(checkpoints / "wav2vec2" / "model.safetensors", weights)
    (tmp_path / "cut" / "config.json").write_text(json.dumps(config | {"intermediate_size": config["intermediate_size"] + 8}))
    with pytest.raises(ValueError, match="cut: its weights have other shapes"):
        load_model(tmp_path / "cut")
    (tmp_path / "cut" / "config.json").write_text("{")
    with pytest.raises(OSError, match="cut/config.json cannot be read"):
        load_model(tmp_path / "cut")


def test_word_boundary_is_one_symbol_under_two_names(small_blocks, make_tokenizer, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}))
    characters = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), bos_token=None, eos_token=None, word_delimiter_token="|")
    spaces = make_tokenizer(["a", " ", "<pad>", "<unk>"])
    model, _ = load_model(QuartzNetConfig(blocks=small_blocks), spaces)
    old = model.lm_head.weight.detach().clone()
    assert fit_head(model, characters, spaces) == ["<unk>", "|", "a"]
    assert torch.equal(model.lm_head.weight, old[[2, 3, 1, 0]])


@pytest.fixture
def letters_model(small_blocks, make_tokenizer):
    """A model with random rows for letters, and its tokenizer."""
    old = make_tokenizer(["a", "b", "c", "|", "<unk>", "<pad>"])
    torch.manual_seed(0)
    model, _ = load_model(QuartzNetConfig(blocks=small_blocks), old)
    torch.nn.init.normal_(model.lm_head.weight)
    torch.nn.init.normal_(model.lm_head.bias)
    return model, old


def test_new_rows_scatter_around_the_mean_of_the_old_ones(letters_model, make_tokenizer, caplog):
    model, old = letters_model
    rows = {name: getattr(model.lm_head, name).detach().numpy().copy() for name in ("weight", "bias")}
    ideographs = [chr(0x4E00 + place) for place in range(5000)]
    with caplog.at_level(logging.INFO, "hfasr"):
        assert fit_head(model, make_tokenizer(["<pad>", "<unk>", *ideographs]), old) == ["<unk>"]
    assert (model.config.paired_symbols, model.config.mean_symbols) == ({}, 5000)
    for name, old_rows in rows.items():
        found, spoken, blank = getattr(model.lm_head, name)[2:].detach().numpy(), old_rows[:4], old_rows[5]
        # 5,000 rows in place of 4: together they are as probable
        expected = (spoken.mean(0) + blank) / 2 - (np.log(5000 / 4) if name == "bias" else 0)
        assert np.abs(found.mean(0) - expected).max() < 0.03
        assert np.abs(found.std(0) / spoken.std(0) - 0.3).max() < 0.018
    assert "5000 start from the mean of the old rows: 一 丁" in caplog.text
    assert "and 4940 more" in caplog.text


def test_pairs(letters_model, make_tokenizer, caplog):
    model, old = letters_model
    weight, bias = model.lm_head.weight.detach().clone(), model.lm_head.bias.detach().clone()
    spread = weight[:4].std(0, correction=0)
    new = make_tokenizer(["<pad>", "á", "à", "b", "ç", "ø", " ", "ß", "<unk>"])
    pairs = {"á": "a", "à": ["ä", "a", "b"], "b": "c", "ç": ("c",), "ø": ["o", "ö"], "ñ": "n", "ß": "<pad>"}
    with caplog.at_level(logging.INFO, "hfasr"):
        assert fit_head(model, new, old, pairs) == ["b", " ", "<unk>"]
    assert model.config.paired_symbols == {"á": "a", "à": "a", "ç": "c"}
    assert model.config.mean_symbols == 2
    mean = (weight[:4].mean(0) + weight[5]) / 2
    for index, row, scatter in ((1, weight[0], 0.5), (2, weight[0], 0.5), (4, weight[2], 0.5), (5, mean, 1.5), (7, mean, 1.5)):
        assert ((model.lm_head.weight[index] - row).abs() <= scatter * spread).all()
        assert not torch.equal(model.lm_head.weight[index], row)
    assert not torch.equal(model.lm_head.weight[1], model.lm_head.weight[2])
    assert torch.equal(model.lm_head.weight[[0, 3, 6, 8]], weight[[5, 1, 3, 4]])
    assert torch.equal(model.lm_head.bias[[0, 3, 6, 8]], bias[[5, 1, 3, 4]])
    for told in (
        "kept the blank and 3 of 8 symbols: b   <unk>",
        "paired: á from a, à from a, ç from c",
        "the tokenizer lacks ñ",
        "has rows of its own for b",
        "lacks the second symbol of ø from o or ö, ß from <pad>; the mean is taken",
    ):
        assert told in caplog.text


def test_pairs_reach_the_head_of_a_checkpoint(checkpoints, tokenizer, tmp_path):
    old = load_model(checkpoints / "unispeech")[0].lm_head.weight
    model, _ = load_model(checkpoints / "unispeech", tokenizer, symbol_pairs={"l": "ɑ"})
    model.save_pretrained(tmp_path)
    config = model_config(tmp_path)
    assert (config.kept_symbols, config.paired_symbols, config.mean_symbols) == (["<unk>", "d[", "tS", "|"], {"l": "ɑ"}, 0)
    assert ((model.lm_head.weight[3] - old[0]).abs() <= 0.5 * old[:4].std(0, correction=0)).all()
    for wrong, message in (
        ({"l": None}, "'l': None, expected a symbol"),
        ({"l": [1]}, r"'l': \[1\], expected"),
        (["l"], "expected new symbol -> old symbol"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(checkpoints / "unispeech", tokenizer, symbol_pairs=wrong)
    with pytest.raises(ValueError, match="with those of a tokenizer"):
        load_model(checkpoints / "unispeech", symbol_pairs={"l": "ɑ"})
    torch.manual_seed(0)
    untrained = load_model("quartznet-small", tokenizer)[0].lm_head.weight
    torch.manual_seed(0)
    assert torch.equal(load_model("quartznet-small", tokenizer, symbol_pairs={"l": "ɑ"})[0].lm_head.weight, untrained)


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("A Б ' |", "a б ' |", {"a": "A", "б": "Б", "'": "'", "|": "|"}),
        ("a б ' |", "A Б ' |", {"A": "a", "Б": "б", "'": "'", "|": "|"}),
        ("A Б", "Б A", {"Б": "Б", "A": "A"}),
        ("A S", "s S", {"s": "S"}),  # phonemes: S is another sound than s
        ("s S a", "S A a", {"S": "S", "a": "a"}),
        ("s A", "S a", {}),
        ("▁ ▁a a", "| a", {"|": "▁", "a": "a"}),
    ],
)
def test_an_alphabet_of_capitals_is_read_in_lower_case(old, new, kept, small_blocks, make_tokenizer):
    old, new = ["<pad>", "<unk>", *old.split()], [*new.split(), "<unk>", "<pad>"]
    model, _ = load_model(QuartzNetConfig(blocks=small_blocks), make_tokenizer(old))
    rows = dict(zip(old, model.lm_head.weight.tolist(), strict=True))
    assert fit_head(model, make_tokenizer(new), make_tokenizer(old)) == [symbol for symbol in new if symbol in kept] + ["<unk>"]
    found = model.lm_head.weight.tolist()
    same = {symbol: name for symbol, row in zip(new, found, strict=True) for name in old if row == rows[name]}
    assert same == kept | {"<unk>": "<unk>", "<pad>": "<pad>"}


def test_start_is_nearer_to_the_truth_than_a_random_head(letters_model, make_tokenizer):
    """Frames of four letters and silence, a head trained on them, and then an alphabet with two more letters."""
    model, old = letters_model
    torch.manual_seed(0)
    sounds = torch.randn(6, 20)
    frames = sounds.repeat(40, 1) + 0.3 * torch.randn(240, 20)
    labels = torch.tensor([0, 1, 2, 3, 5, 5]).repeat(40)
    optimizer = torch.optim.SGD(model.lm_head.parameters(), lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.lm_head(frames), labels).backward()
        optimizer.step()
    new = make_tokenizer(["<pad>", "a", "b", "c", "|", "<unk>", "x", "y"])
    # the sixth sound, which was silence to the old head, is a letter now
    labels = torch.tensor([1, 2, 3, 4, 0, 6]).repeat(40)
    losses = {}
    for name, tokenizer in (("transferred", old), ("random", None)):
        start = copy.deepcopy(model)
        fit_head(start, new, tokenizer)
        losses[name] = torch.nn.functional.cross_entropy(start.lm_head(frames), labels).item()
    assert losses["transferred"] < losses["random"]


def test_nemo_file_is_a_checkpoint_like_another(nemo_folder, make_tokenizer, tmp_path, caplog):
    plain, processor = load_model(nemo_folder / "citrinet_tiny_zh.nemo")
    assert (processor.feature_extractor.feature_size, processor.feature_extractor.window_length) == (80, 400)
    assert model_config(str(nemo_folder / "citrinet_tiny_zh.nemo")).to_diff_dict() == plain.config.to_diff_dict()
    plain.save_pretrained(tmp_path / "folder")
    processor.save_pretrained(tmp_path / "folder")
    # a tar under another name
    shutil.copyfile(nemo_folder / "citrinet_tiny_zh.nemo", tmp_path / "weights")

    symbols = processor.tokenizer.convert_ids_to_tokens(list(range(1, 30)))
    tokenizer = make_tokenizer([*reversed(symbols), "ə", "a", "<pad>"])
    loaded = []
    for path in (tmp_path / "folder", tmp_path / "weights"):
        torch.manual_seed(0)
        loaded.append(load_model(path, tokenizer, symbol_pairs={"ə": symbols[1]}, config_overrides={"dropout": 0.3}))
    (folder, _), (nemo, nemo_processor) = loaded
    assert not nemo.training
    assert nemo.config.dropout == 0.3
    assert nemo.config.paired_symbols == {"ə": symbols[1]}
    assert nemo_processor.tokenizer is tokenizer
    assert folder.config.to_diff_dict().items() >= nemo.config.to_diff_dict().items()
    weights = folder.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in nemo.state_dict().items())
    old = dict(zip(symbols, plain.lm_head.weight[1:], strict=False))
    assert all(torch.equal(nemo.lm_head.weight[place], old[symbol]) for place, symbol in enumerate(reversed(symbols)))
    with pytest.raises(ValueError, match="dropuot, which a citrinet"):
        load_model(tmp_path / "weights", config_overrides={"dropuot": 0.1})


def test_overrides_of_convolutional_models_are_checked(small_blocks, tmp_path, tokenizer):
    write_nemo(tmp_path / "x.nemo", QuartzNetConfig(blocks=small_blocks))
    own = load_model(tmp_path / "x.nemo")[0].config
    for given in (None, tokenizer):
        for field, value in (
            ("model_type", "citrinet"),
            ("blocks", small_blocks[:2]),
            ("vocab_size", 5),
            ("pad_token_id", 7),
            ("num_mel_bins", 80),
            ("hop_length", 1),
        ):
            with pytest.raises(ValueError, match=f"config_overrides changes {field}, which .*x.nemo settles"):
                load_model(tmp_path / "x.nemo", given, config_overrides={field: value, "dropout": 0.1})
    same = {"blocks": own.blocks, "pad_token_id": 0, "dropout": 0.2}
    assert load_model(tmp_path / "x.nemo", config_overrides=same)[0].quartznet.blocks[0].dropout.p == 0.2
    for name in (tmp_path / "x.nemo", "quartznet-small"):
        with pytest.raises(ValueError, match="ctc_loss_reduction is 'x', expected 'mean' or 'sum'"):
            load_model(name, tokenizer, config_overrides={"ctc_loss_reduction": "x"})


def test_bos_and_eos_behind_the_head_are_accepted(checkpoints, tmp_path, make_tokenizer):
    # what many published checkpoints look like: ids 6 and 7 are never emitted
    longer = make_tokenizer(["ɑ", "tS", "|", "d[", "<unk>", "<pad>"], bos_token="<s>", eos_token="</s>")
    assert len(longer) == 8
    model, processor = load_model(checkpoints / "unispeech")
    model.save_pretrained(tmp_path)
    Wav2Vec2Processor(processor.feature_extractor, longer).save_pretrained(tmp_path)
    assert load_model(tmp_path)[0].config.vocab_size == 6
    assert load_model(tmp_path, longer)[0].config.kept_symbols == ["ɑ", "tS", "|", "d[", "<unk>"]


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (["ɑ", "tS", "<unk>", "<pad>"], "head has 6 outputs, its tokenizer 4 symbols"),
        (["<pad>", "ɑ", "tS", "|", "d[", "<unk>"], "blank is 5 in the configuration and 0 in the tokenizer"),
    ],
)
def test_tokenizer_that_does_not_fit(symbols, message, checkpoints, tmp_path, make_tokenizer):
    model, processor = load_model(checkpoints / "unispeech")
    model.save_pretrained(tmp_path)
    Wav2Vec2Processor(processor.feature_extractor, make_tokenizer(symbols)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_refusals(checkpoints, tokenizer, make_tokenizer, tmp_path):
    with pytest.raises(ValueError, match="random weights needs a tokenizer"):
        load_model("quartznet-small")
    with pytest.raises(ValueError, match="mask_tme_prob, rate, which a unispeech"):
        load_model(checkpoints / "unispeech", tokenizer, config_overrides={"mask_tme_prob": 0.1, "rate": 1, "layerdrop": 0.0})
    with pytest.raises(ValueError, match="no pad token"):
        load_model("quartznet-small", make_tokenizer(["ɑ", "<unk>"], pad_token=None))
    with pytest.raises(ValueError, match="bert models have no CTC head"):
        load_model(BertConfig(), tokenizer)
    with pytest.raises(FileNotFoundError, match="'/no/such/folder' is no folder or .nemo file here"):
        load_model("/no/such/folder")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"has no config.json, found notes.txt"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"notes.txt is no .nemo file"):
        load_model(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match="'runs/kk.nemo' is no folder or .nemo file here"):
        load_model("runs/kk.nemo")
    for name in ("empty.nemo", "packed"):
        (tmp_path / name).write_bytes(b"\x1f\x8b" if name == "packed" else b"")
        with pytest.raises(ValueError, match=f"{name}: "):
            load_model(tmp_path / name)


@pytest.mark.parametrize("family", FAMILIES)
def test_freezing(family, checkpoints):
    model, _ = load_model(checkpoints / family)
    frozen = freeze_feature_encoder(model)
    assert frozen == [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert bool(frozen) == (family not in ("quartznet", "citrinet", "wav2vec2-bert"))
    assert all("feature_extractor.conv_layers" in name for name in frozen)
    assert freeze_feature_encoder(model) == []
    below_head = {id(parameter) for parameter in encoder_of(model).parameters()}
    assert {name for name, parameter in model.named_parameters() if id(parameter) not in below_head} == {"lm_head.weight", "lm_head.bias"}


FRESH_PROCESS = """
import json, sys
import numpy as np
import torch
from transformers import AutoModelForCTC, AutoProcessor, pipeline

import hfasr.models

root, families = sys.argv[1], sys.argv[2:]
waveforms = list(np.load(f"{root}/waveforms.npz").values())
texts = {}
for family in families:
    folder = f"{root}/{family}"
    model = AutoModelForCTC.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**processor(waveforms, sampling_rate=16_000, return_tensors="pt", padding=True)).logits
    np.save(f"{root}/{family}.npy", logits.numpy())
    recogniser = pipeline("automatic-speech-recognition", model=folder)
    texts[family] = [recogniser(waveform)["text"] for waveform in waveforms]
modules = [type(model).__module__, type(processor.feature_extractor).__module__]
json.dump({"modules": modules, "texts": texts}, open(f"{root}/out.json", "w"))
"""


def greedy_text(logits, tokenizer):
    ids = [label for label, _ in groupby(logits.argmax(-1).tolist()) if label != tokenizer.pad_token_id]
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def load_afresh(root, families, waveforms):
    np.savez(root / "waveforms.npz", *waveforms)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", FRESH_PROCESS, str(root), *families]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((root / "out.json").read_text())


def test_fresh_process(checkpoints, waveforms):
    """Where hfasr.models is imported, no trust is needed; test_nemo.py loads the checkpoints where hfasr is not installed."""
    found = load_afresh(checkpoints, LOADED_AFRESH, waveforms)
    assert all(module.startswith("hfasr.models") for module in found["modules"])
    for family in LOADED_AFRESH:
        model, processor = load_model(checkpoints / family)
        expected, _ = logits_of(model, processor, waveforms)
        assert np.abs(np.load(checkpoints / f"{family}.npy") - expected.numpy()).max() < 1e-6
        alone = [logits_of(model, processor, waveform)[0][0] for waveform in waveforms]
        assert found["texts"][family] == [greedy_text(logits, processor.tokenizer) for logits in alone]
        assert any(len(text.split()) > 3 for text in found["texts"][family])


def test_auto_classes_load_what_was_saved(checkpoints, tokenizer, waveforms, tmp_path):
    model, processor = load_model(checkpoints / "quartznet", tokenizer)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == {"quartznet.py", "encoder.py", "blocks.py", "mel.py"}
    loaded = AutoModelForCTC.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded[0]) is type(model)
    assert loaded[0].config.kept_symbols == model.config.kept_symbols
    assert torch.equal(logits_of(*loaded, waveforms)[0], logits_of(model, processor, waveforms)[0])


def test_hub_name_offline():
    with pytest.raises(OSError, match=r"'owner/model' is no folder here and could not be had from the Hugging Face Hub"):
        load_model("owner/model")
