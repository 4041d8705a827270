"""Import of NVIDIA NeMo's `.nemo` archives."""

import io
import json
import math
import multiprocessing
import os
import pickle
import re
import runpy
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import yaml
from nemo_files import LATIN, saved, write_archive, write_nemo
from torch.nn import functional
from transformers import AutoModelForCTC, AutoProcessor, AutoTokenizer

from hfasr.models import nemo_archive
from hfasr.models.citrinet import CitrinetConfig, CitrinetForCTC
from hfasr.models.encoder import BLOCK_DEFAULTS
from hfasr.models.nemo import build_nemo, import_nemo, nemo_names, read_nemo
from hfasr.models.nemo_archive import parse_config
from hfasr.models.nemo_config import Section, framing_of
from hfasr.models.nemo_vocabulary import character_tokenizer, sentencepiece_tokenizer, wordpiece_tokenizer
from hfasr.models.quartznet import QuartzNetConfig, QuartzNetForCTC

TEXTS = ["it's a test, isn't it?", "yes - no!", "one, two and three tests", "a test of the one and only two", "тест деген сынақ, солай ма?"]
BPE_TARGET = "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE"


def load_nemo(path, framing=None):
    return build_nemo(read_nemo(path, framing=framing))


@pytest.fixture(scope="session")
def imported(nemo_folder):
    """(name, framing) -> model and processor of a reference archive, loaded once."""
    loaded = {}

    def load(name: str, framing: str | None):
        if (name, framing) not in loaded:
            loaded[name, framing] = load_nemo(nemo_folder / f"{name}.nemo", framing=framing)
        return loaded[name, framing]

    return load


@pytest.fixture(scope="session")
def sentencepiece_model():
    """Train a tiny model: (options of the trainer) -> its bytes."""

    def train(**options) -> bytes:
        model = io.BytesIO()
        settings = {"vocab_size": 60, "model_type": "unigram", "hard_vocab_limit": False, "minloglevel": 2, **options}
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS * 3), model_writer=model, **settings)
        return model.getvalue()

    return train


QUARTZNET = QuartzNetConfig(
    blocks=[
        {"filters": 12, "kernel": 5, "stride": 2, "dropout": 0.1},
        {"filters": 12, "kernel": 7, "repeat": 3, "residual": True},
        {"filters": 10, "kernel": 9, "repeat": 2, "dilation": 3, "separable": False},
        {"filters": 16, "kernel": 1, "separable": False, "residual": True},
    ],
    num_mel_bins=16,
)
CITRINET = CitrinetConfig(
    blocks=[
        {"filters": 16, "kernel": 5, "squeeze_excite": True},
        {
            "filters": 16,
            "kernel": 3,
            "repeat": 3,
            "stride": 2,
            "stride_last": True,
            "residual": True,
            "squeeze_excite": True,
            "se_reduction": 4,
        },
        {"filters": 24, "kernel": 7, "stride": 2, "separable": False, "squeeze_excite": True, "se_context": 64},
        {"filters": 24, "kernel": 5, "repeat": 2, "residual": True},
    ],
    num_mel_bins=16,
)


# the front end, the encoder and the text against NeMo 3.0.0


@pytest.mark.parametrize(("name", "tolerance"), [("quartznet5x1_en", 5e-4), ("citrinet_tiny_zh", 3e-3)])
@pytest.mark.parametrize(("framing", "prefix"), [(None, "pad0"), ("nemo24", "legacy24")])
def test_equals_nemo_alone(imported, nemo_reference, name, tolerance, framing, prefix):
    (model, processor), reference = imported(name, framing), nemo_reference(name)
    for clip in range(4):
        inputs = processor(reference[f"wav_{clip}"], sampling_rate=16_000, return_tensors="pt")
        mel_frames, frames = int(reference[f"{prefix}_mel_len_{clip}"]), int(reference[f"{prefix}_enc_len_{clip}"])
        assert inputs.input_features.shape[1] == mel_frames
        np.testing.assert_allclose(inputs.input_features[0].T, reference[f"{prefix}_mel_{clip}"][:, :mel_frames], rtol=0, atol=1e-4)
        with torch.no_grad():
            log_probs = model(**inputs).logits.log_softmax(-1)[0]
        assert len(log_probs) == frames
        np.testing.assert_allclose(log_probs, _blank_first(reference[f"{prefix}_logprobs_{clip}"][:frames]), rtol=0, atol=tolerance)
        assert processor.tokenizer.decode(log_probs.argmax(-1)) == str(reference[f"{prefix}_text_{clip}"])


@pytest.mark.parametrize(("name", "tolerance"), [("quartznet5x1_en", 5e-4), ("citrinet_tiny_zh", 3e-3)])
def test_equals_nemo_in_a_padded_batch(imported, nemo_reference, name, tolerance):
    (model, processor), reference = imported(name, None), nemo_reference(name)
    inputs = processor([reference[f"wav_{clip}"] for clip in range(3)], sampling_rate=16_000, return_tensors="pt")
    assert inputs.attention_mask.sum(-1).tolist() == reference["pad0_batch_mel_len"].tolist()
    with torch.no_grad():
        log_probs = model(**inputs).logits.log_softmax(-1)
    lengths = model._get_feat_extract_output_lengths(inputs.attention_mask.sum(-1)).tolist()
    assert lengths == reference["pad0_batch_enc_len"].tolist()
    for row, frames in enumerate(lengths):
        mel_frames = int(reference["pad0_batch_mel_len"][row])
        mel = reference["pad0_batch_mel"][row, :, :mel_frames]
        np.testing.assert_allclose(inputs.input_features[row, :mel_frames].T, mel, rtol=0, atol=1e-4)
        expected = _blank_first(reference["pad0_batch_logprobs"][row, :frames])
        np.testing.assert_allclose(log_probs[row, :frames], expected, rtol=0, atol=tolerance)
        assert processor.tokenizer.decode(log_probs[row, :frames].argmax(-1)) == str(reference["pad0_batch_text"][row])


def test_decode_cases(nemo_folder):
    # labels of the two hidden models, as far as their cases tell; others stand for what does not occur
    kazakh = {0: " ", 1: "а", 2: "ә", 8: "е", 11: "з", 15: "қ", 16: "л", 17: "м", 24: "с"}
    chinese = {0: "说", 1: "法", 2: "里"}
    labels = {
        "quartznet5x1_en": LATIN,
        "quartznet5x3_kk_hidden": [kazakh.get(place, chr(0x2460 + place)) for place in range(43)],
        "citrinet_tiny2_hidden": [chinese.get(place, chr(0x2460 + place)) for place in range(56)],
    }
    checked = 0
    for name, model in json.loads((nemo_folder / "decode_cases.json").read_text()).items():
        tokenizer = character_tokenizer(labels[name])
        assert len(labels[name]) == model["blank"]
        for case in model["cases"]:
            ids = [0 if label == model["blank"] else label + 1 for label in case["frame_ids"]]
            assert tokenizer.decode(ids) == case["text"], case
            checked += 1
    assert checked == 16


@pytest.mark.parametrize(
    ("name", "config", "parameters"),
    [
        ("quartznet15x5_en", lambda: QuartzNetConfig.from_name("15x5", vocab_size=29), 18_924_381),
        ("quartznet15x5_kz42", lambda: QuartzNetConfig.from_name("15x5", vocab_size=43), 18_938_731),
        ("citrinet1024_g025_zh5000", lambda: CitrinetConfig.from_name("1024-gamma-0.25", vocab_size=5001), 145_299_737),
        ("citrinet1024_g025_bpe1024", lambda: CitrinetConfig.from_name("1024", 0.25, vocab_size=1025), 141_224_337),
        ("citrinet512_bpe1024", lambda: CitrinetConfig.from_name("512", vocab_size=1025), 36_994_321),
        ("citrinet384_bpe1024", lambda: CitrinetConfig.from_name("384", vocab_size=1025), 21_472_529),
        ("citrinet384_bpe256", lambda: CitrinetConfig.from_name("384", vocab_size=257), 20_980_241),
    ],
)
def test_names_map_one_to_one(nemo_folder, name, config, parameters):
    listing = json.loads((nemo_folder / f"{name}.state_dict.json").read_text())["state_dict"]
    theirs = {entry["name"]: entry["shape"] for entry in listing if not entry["name"].startswith("preprocessor.")}
    with torch.device("meta"):
        model = (CitrinetForCTC if name.startswith("citrinet") else QuartzNetForCTC)(config())
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    ours["lm_head.weight"].append(1)
    names = nemo_names(model.config)
    assert names.keys() == theirs.keys()
    assert sorted(names.values()) == sorted(ours)
    assert {key: ours[value] for key, value in names.items()} == theirs
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


# any other model, against NeMo's encoder written out anew


@pytest.mark.parametrize("config", [QUARTZNET, CITRINET], ids=["quartznet", "citrinet"])
@pytest.mark.parametrize("form", ["plain", "packed and without masks", "float16"])
def test_equals_an_encoder_written_from_the_yaml(tmp_path, config, form):
    labels = [" ", "ә", "b", "?", "ch"]
    masked = form != "packed and without masks"
    dtype = torch.float16 if form == "float16" else torch.float32
    options, weights = write_nemo(
        tmp_path / "x.nemo", config, labels, masked=masked, dtype=dtype, packed=not masked, n_fft=512, window_size=0.025
    )
    checkpoint = read_nemo(tmp_path / "x.nemo")
    assert checkpoint.config.blocks == config.blocks
    assert type(checkpoint.config) is type(config)
    assert checkpoint.feature_extractor.window_length == 400
    assert any("conv_mask" in remark for remark in checkpoint.remarks) == (not masked)
    model, processor = build_nemo(checkpoint)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert processor.tokenizer.convert_ids_to_tokens(range(6)) == ["<pad>", *labels]

    torch.manual_seed(1)
    features, lengths = torch.randn(3, 57, 16, dtype=torch.float64), torch.tensor([57, 40, 23])
    mask = torch.arange(57) < lengths[:, None]
    with torch.no_grad():
        log_probs = model.double()(features, mask.long()).logits.log_softmax(-1)
    weights = {name: tensor.to(dtype).double() for name, tensor in weights.items()}
    expected, frames = _nemo_log_probs(options, weights, features.transpose(1, 2), lengths)
    assert model._get_feat_extract_output_lengths(lengths).tolist() == frames.tolist()
    for row, count in enumerate(frames):
        np.testing.assert_allclose(log_probs[row, :count], _blank_first(expected[row, :count]), rtol=0, atol=1e-9)


def test_kernel_size_factor_and_sticky_residual_mode(tmp_path):
    config = CitrinetConfig(
        blocks=[
            {"filters": 8, "kernel": 5, "squeeze_excite": True},
            {"filters": 8, "kernel": 3, "repeat": 2, "stride": 2, "stride_last": True, "residual": True},
            {"filters": 8, "kernel": 11, "stride": 2, "residual": True},
        ],
        num_mel_bins=16,
    )

    def change(options: dict) -> None:
        jasper = options["encoder"]["jasper"]
        jasper[1] |= {"kernel": [13], "kernel_size_factor": 0.25}
        # int(39 * 0.26) = 10, and up to an odd number
        jasper[2] |= {"kernel": 39, "kernel_size_factor": 0.26}
        # names no residual_mode, so that of the block before holds: without it this stride could not be added
        assert "residual_mode" not in jasper[2]
        jasper[0]["se_context_window"] = jasper[0].pop("se_context_size")
        options["encoder"]["jasper"] = jasper

    write_nemo(tmp_path / "x.nemo", config, change=change)
    assert read_nemo(tmp_path / "x.nemo").config.blocks == config.blocks


@pytest.mark.parametrize("name", ["quartznet5x1_en", "citrinet_tiny_zh"])
def test_reads_what_the_archive_says(nemo_folder, name):
    checkpoint = read_nemo(nemo_folder / f"{name}.nemo")
    assert checkpoint.target.endswith("EncDecCTCModel")
    assert checkpoint.feature_extractor.framing == "current"
    assert "3.0.0" in checkpoint.framing_reason
    config = checkpoint.config
    if name == "quartznet5x1_en":
        assert _filled(config) == _filled(QuartzNetConfig.from_name("5x1"))
        assert (config.rect_masks, config.rect_freq, config.rect_time) == (5, 50, 120)
        assert checkpoint.labels == tuple(LATIN)
    else:
        stock = _filled(CitrinetConfig.from_name("1024-gamma-0.25"))
        assert _filled(config) == [{**block, "filters": 128 if index == 22 else 64} for index, block in enumerate(stock)]
        assert (config.freq_masks, config.freq_width, config.time_masks, config.time_width) == (2, 27, 10, 0.05)


def _filled(config) -> list[dict]:
    return [{**BLOCK_DEFAULTS, **block} for block in config.blocks]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"window_length": 320, "hop_length": 160, "n_fft": 512, "preemphasis": 0.97, "window": "hann", "high_hz": None}),
        ({"window_size": 0.025, "window": "hamming"}, {"window_length": 400, "window": "hamming"}),
        # int(0.01 * 22050) is 220
        ({"sample_rate": 22_050, "window_size": 0.02, "n_fft": 1024}, {"window_length": 441, "hop_length": 220, "sampling_rate": 22_050}),
        ({"window_size": None, "window_stride": None, "n_window_size": 300, "n_window_stride": 128},
         {"window_length": 300, "hop_length": 128}),
        ({"lowfreq": 20, "highfreq": 7600, "preemph": None, "normalize": "all_features"},
         {"low_hz": 20, "high_hz": 7600, "preemphasis": 0, "normalize": "all_features"}),
        ({"normalize": "NA", "mag_power": 1.0, "log_zero_guard_value": "eps"}, {"normalize": "none", "power": 1, "log_guard": 2**-23}),
    ],
)  # fmt: skip
def test_front_end(tmp_path, options, expected):
    write_nemo(tmp_path / "x.nemo", QUARTZNET, **options)
    extractor = read_nemo(tmp_path / "x.nemo").feature_extractor
    assert {name: getattr(extractor, name) for name in expected} == expected


def test_default_fourier_length_is_the_next_power_of_two(tmp_path):
    def change(options: dict) -> None:
        options["preprocessor"]["n_fft"] = None

    write_nemo(tmp_path / "x.nemo", QUARTZNET, change=change, n_fft=1024, window_size=0.04)
    assert read_nemo(tmp_path / "x.nemo").feature_extractor.n_fft == 1024


@pytest.mark.parametrize(
    ("version", "framing"),
    [("3.0.0", "current"), ("2.5.0rc0", "current"), ("2.10.0", "current"), (2.5, "current"), ("2.4.1", "nemo24"), ("1.0.0rc1", "nemo24"),
     ("1.23", "nemo24"), (None, "nemo24"), ("main", "nemo24")],
)  # fmt: skip
def test_framing(version, framing):
    assert framing_of(Section({"nemo_version": version}, ""))[0] == framing


def test_sections_of_the_first_betas(tmp_path):
    def change(options: dict) -> None:
        for name in ("preprocessor", "encoder", "decoder", "spec_augment"):
            section = options[name]
            options[name] = {"cls": section.pop("_target_"), "params": section}
        del options["nemo_version"]

    write_nemo(tmp_path / "x.nemo", QUARTZNET, change=change)
    checkpoint = read_nemo(tmp_path / "x.nemo")
    assert checkpoint.config.blocks == QUARTZNET.blocks
    assert checkpoint.feature_extractor.framing == "nemo24"
    assert checkpoint.config.rect_masks == 5
    assert read_nemo(tmp_path / "x.nemo", framing="current").feature_extractor.framing == "current"


# vocabularies


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "options", [{}, {"bos_id": -1, "eos_id": -1, "normalization_rule_name": "identity"}, {"pad_id": 3, "add_dummy_prefix": False}]
)
def test_sentencepiece(sentencepiece_model, kind, options):
    model = sentencepiece_model(model_type=kind, **options)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer, pieces = sentencepiece_tokenizer(model)
    assert len(tokenizer) == len(theirs) + 1
    assert pieces == [theirs.id_to_piece(place) for place in range(len(theirs))]
    for text in [*TEXTS, "", "  two   spaces ", "日本 unknown ъ", "ﬁne ｗｉｄｅ　text"]:
        assert tokenizer(text).input_ids == [place + 1 for place in theirs.encode(text)]
    random = np.random.default_rng(0)
    for length in random.integers(0, 12, 200):
        ids = random.integers(0, len(theirs), length).tolist()
        assert tokenizer.decode([place + 1 for place in ids], group_tokens=False) == _without_space(theirs.decode(ids), pieces)


def test_wordpiece():
    from transformers import BertTokenizer

    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "it",
        "'",
        "s",
        "##s",
        "##t",
        "te",
        "test",
        "##ing",
        ",",
        "?",
        "is",
        "##n",
        "мә",
        "##тін",
    ]
    stock = BertTokenizer(vocab={token: place for place, token in enumerate(tokens)}, do_lower_case=False)
    tokenizer, found = wordpiece_tokenizer("\r\n".join(tokens).encode() + b"\n", {})
    assert found == tokens
    for text in ["it's testing, isn't it?", "мәтін", "xyz test", ""]:
        assert tokenizer(text).input_ids == [place + 1 for place in stock(text, add_special_tokens=False).input_ids]
    random = np.random.default_rng(0)
    for length in random.integers(0, 8, 300):
        ids = random.integers(0, len(tokens), length).tolist()
        # BertTokenizer's convert_tokens_to_string, as NeMo 3.0.0 calls it, which keeps special tokens
        text = " ".join(tokens[place] for place in ids).replace(" ##", "").strip()
        assert tokenizer.decode([place + 1 for place in ids], group_tokens=False) == _without_space(text, tokens)


def test_wordpiece_with_tokens_that_nemo_added():
    """NeMo adds those of BERT that the file lacks, behind it; the decoder's vocabulary lists them."""
    labels = ["[UNK]", "a", "##b", "[SEP]", "[PAD]", "[CLS]", "[MASK]"]
    tokenizer, found = wordpiece_tokenizer(b"[UNK]\na\n##b\n", {}, labels)
    assert found == labels
    assert tokenizer.decode([2, 3, 7], group_tokens=False) == "ab [MASK]"


def test_characters_are_dropped_when_unknown():
    tokenizer = character_tokenizer([" ", "a", "<pad>", "'", "ch"])
    assert tokenizer("a  ch?a'").input_ids == [2, 1, 1, 2, 4]
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.bos_token, tokenizer.unk_token) == ("<blank>", 0, None, None)
    assert tokenizer.decode([1, 2, 0, 2, 2, 1, 0, 1, 4, 5]) == " aa 'ch"


def test_whole_archives_with_pieces(tmp_path, sentencepiece_model):
    model = sentencepiece_model()
    _, pieces = sentencepiece_tokenizer(model)

    def change(options: dict) -> None:
        options["target"] = BPE_TARGET
        options["tokenizer"] = {
            "type": "bpe",
            "dir": "/work/tokenizer",
            "model_path": "nemo:0a1b_tokenizer.model",
            "vocab_path": "nemo:vocab.txt",
        }

    files = {"0a1b_tokenizer.model": model, "vocab.txt": b"unused\n"}
    write_nemo(tmp_path / "bpe.nemo", QUARTZNET, pieces, change=change, files=files)
    checkpoint = read_nemo(tmp_path / "bpe.nemo")
    assert checkpoint.labels == tuple(pieces)
    assert checkpoint.config.vocab_size == len(checkpoint.tokenizer) == len(pieces) + 1

    tokens = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", "##b"]

    def change_words(options: dict) -> None:
        options["target"] = BPE_TARGET
        options["tokenizer"] = {"type": "wpe", "dir": "/work/tokenizer", "vocab_path": "nemo:0a1b_vocab.txt"}

    write_nemo(tmp_path / "wpe.nemo", QUARTZNET, tokens, change=change_words, files={"0a1b_vocab.txt": "\n".join(tokens).encode()})
    assert read_nemo(tmp_path / "wpe.nemo").tokenizer.decode([6, 7, 0, 7, 1, 6]) == "abb [UNK] a"
    write_nemo(tmp_path / "short.nemo", QUARTZNET, tokens[:-1], change=change_words, files={"0a1b_vocab.txt": "\n".join(tokens).encode()})
    with pytest.raises(ValueError, match=r"the tokenizer has 7 pieces, but the decoder 6 classes"):
        read_nemo(tmp_path / "short.nemo")


# the written checkpoint

ELSEWHERE = """
import sys
sys.modules["hfasr"] = None
import numpy as np, torch
from transformers import AutoModelForCTC, AutoProcessor, pipeline
waveforms = list(np.load("waveforms.npz").values())
for name in sys.argv[1:]:
    model = AutoModelForCTC.from_pretrained(name, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    for part in (model, processor.feature_extractor):
        assert type(part).__module__.startswith("transformers_modules"), type(part)
    inputs = processor(waveforms, sampling_rate=16_000, return_tensors="pt", padding=True)
    with torch.no_grad():
        np.save(f"{name}/logits.npy", model(**inputs).logits.numpy())
    recognise = pipeline("automatic-speech-recognition", model=name, trust_remote_code=True)
    open(f"{name}/text.txt", "w").write(recognise(waveforms[0])["text"])
"""


def test_checkpoint_loads_without_hfasr(tmp_path, sentencepiece_model, waveforms):
    model = sentencepiece_model(model_type="bpe")
    _, pieces = sentencepiece_tokenizer(model)

    def change(options: dict) -> None:
        options |= {"target": BPE_TARGET, "tokenizer": {"type": "bpe", "model_path": "nemo:tokenizer.model"}}

    write_nemo(tmp_path / "characters.nemo", CITRINET, LATIN)
    write_nemo(tmp_path / "pieces.nemo", QUARTZNET, pieces, change=change, files={"tokenizer.model": model})
    np.savez(tmp_path / "waveforms.npz", *waveforms)
    names = ["characters", "pieces"]
    for name in names:
        import_nemo(tmp_path / f"{name}.nemo", tmp_path / name)
    subprocess.run([sys.executable, "-c", ELSEWHERE, *names], cwd=tmp_path, check=True, capture_output=True)
    for name in names:
        model, processor = load_nemo(tmp_path / f"{name}.nemo")
        with torch.no_grad():
            logits = model(**processor(waveforms, sampling_rate=16_000, return_tensors="pt", padding=True)).logits
            alone = model(**processor(waveforms[0], sampling_rate=16_000, return_tensors="pt")).logits[0]
        # another number of threads sums in another order
        np.testing.assert_allclose(np.load(tmp_path / name / "logits.npy"), logits.numpy(), rtol=0, atol=1e-5)
        text = processor.tokenizer.decode(alone.argmax(-1))
        assert (tmp_path / name / "text.txt").read_text() == text
        assert text
        stored = AutoTokenizer.from_pretrained(tmp_path / name)
        assert stored.get_vocab() == processor.tokenizer.get_vocab()
        assert [stored(line).input_ids for line in TEXTS] == [processor.tokenizer(line).input_ids for line in TEXTS]
        assert AutoModelForCTC.from_pretrained(tmp_path / name).config.pad_token_id == stored.pad_token_id == 0
        assert AutoProcessor.from_pretrained(tmp_path / name).feature_extractor.framing == "current"


def test_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_nemo(tmp_path / "x.nemo", QUARTZNET)
    target = tmp_path / "new" / "checkpoint"
    with monkeypatch.context() as patched:
        patched.setattr(QuartzNetForCTC, "save_pretrained", _disk_full)
        with pytest.raises(OSError, match="No space left"):
            import_nemo(tmp_path / "x.nemo", target)
    assert not any((tmp_path / "new").iterdir())
    target.mkdir()
    assert import_nemo(tmp_path / "x.nemo", target).labels == tuple(LATIN)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in target.iterdir()}
    with pytest.raises(ValueError, match="is there already, expected a new or an empty folder"):
        import_nemo(tmp_path / "x.nemo", target)


def _disk_full(model, folder, **options):
    Path(folder).mkdir()
    raise OSError(28, "No space left on device")


def test_verb(tmp_path, capsys, monkeypatch):
    from hfasr import cli

    write_nemo(tmp_path / "x.nemo", QUARTZNET)
    monkeypatch.setattr(sys, "argv", ["hfasr", "import-nemo", f"{tmp_path}/x.nemo", f"{tmp_path}/out", "--framing", "nemo24"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    parameters = sum(parameter.numel() for parameter in load_nemo(tmp_path / "x.nemo")[0].parameters())
    for expected in (
        "QuartzNet, from nemo.",
        f"{parameters:,}",
        "28 and the blank: (space) a b",
        "16 mel bins, 20 ms every 10 ms",
        "nemo24, as asked for",
    ):
        assert expected in shown


def test_verb_prints_nothing_raw(tmp_path, capsys):
    from hfasr.cli.models import import_nemo as verb

    def change(options: dict) -> None:
        options |= {"target": f"{NASTY}.EncDecCTCModel", "nemo_version": f"2.5{NASTY}"}
        options["spec_augment"]["_target_"] = NASTY

    write_nemo(tmp_path / "x.nemo", QUARTZNET, ["\x1b[2J", "\n", "ә", " ", "\u200c"], change=change)
    verb(tmp_path / "x.nemo", tmp_path / "out")
    shown = capsys.readouterr().out
    assert all(line.isprintable() for line in shown.split("\n"))
    for expected in (
        r"QuartzNet, from Bad\x1b[2J\nerror: fine.EncDecCTCModel",
        r"5 and the blank: \x1b[2J \n ә (space) \u200c",
        r"current, saved by NeMo 2.5Bad\x1b[2J\nerror: fine, 2.5 or newer",
        r"spec_augment is a Bad\x1b[2J\nerror: fine, which is not taken over",
    ):
        assert expected in shown
    assert read_nemo(tmp_path / "x.nemo").labels[:2] == ("\x1b[2J", "\n")


# bad input


@pytest.fixture(scope="session")
def members(tmp_path_factory) -> dict[str, bytes]:
    """Content of a good archive."""
    path = tmp_path_factory.mktemp("good") / "good.nemo"
    write_nemo(path, QUARTZNET)
    with tarfile.open(path) as archive:
        return {member.name.removeprefix("./"): archive.extractfile(member).read() for member in archive.getmembers() if member.isfile()}


def _configured(change):
    """Archive with a changed configuration."""

    def make(path: Path, members: dict[str, bytes]) -> None:
        config = yaml.safe_load(members["model_config.yaml"])
        change(config)
        write_archive(path, {**members, "model_config.yaml": yaml.dump(config).encode()})

    return make


def _weighted(change):
    """Archive with changed weights: a dict that is changed, or other content."""

    def make(path: Path, members: dict[str, bytes]) -> None:
        weights = torch.load(io.BytesIO(members["model_weights.ckpt"]), weights_only=True)
        content = change(weights)
        write_archive(path, {**members, "model_weights.ckpt": content if isinstance(content, bytes) else saved(weights)})

    return make


def _with_member(member: tarfile.TarInfo, content: bytes = b""):
    def make(path: Path, members: dict[str, bytes]) -> None:
        write_archive(path, members)
        with tarfile.open(path, "a:") as archive:
            archive.addfile(member, io.BytesIO(content))

    return make


def _cut(packed: bool):
    return lambda path, members: path.write_bytes(write_archive(path, members, packed=packed).read_bytes()[:3000])


def _without(name: str):
    return lambda path, members: write_archive(path, {other: content for other, content in members.items() if other != name})


def _member(name: str, **fields) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def _huge_tar(path: Path, members: dict[str, bytes]) -> None:
    path.write_bytes(_member("./model_weights.ckpt", size=10 << 30).tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def _sparse_tar(path: Path, members: dict[str, bytes]) -> None:
    """10 GB of zeros, which take no room on the disk."""
    write_archive(path, {name: content for name, content in members.items() if name != "model_weights.ckpt"})
    content = path.read_bytes().rstrip(b"\0")
    with open(path, "wb") as file:
        file.write(content + bytes(-len(content) % 512))
        file.write(_member("./model_weights.ckpt", size=10 << 30).tobuf(tarfile.GNU_FORMAT))
        file.truncate(file.tell() + (10 << 30) + 1024)


def _huge_gzip(path: Path, members: dict[str, bytes]) -> None:
    write_archive(path, {**members, "zeros": bytes(10 << 20)}, packed=True)


def _huge_record(weights: dict) -> bytes:
    """A zip whose directory declares 10 GB in a record."""
    content = bytearray(saved(weights))
    place = content.rindex(b"PK\x01\x02", 0, content.index(b"data.pkl", content.index(b"PK\x01\x02")))
    content[place + 20 : place + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    return bytes(content)


class _Malicious:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _long_storage(weights: dict) -> bytes:
    """A pickle that claims more numbers than the record behind it holds: read naively, it shows what lies behind in memory."""
    made = io.BytesIO()
    name = "decoder.decoder_layers.0.bias"
    weights[name] = torch.zeros(7777)
    with zipfile.ZipFile(io.BytesIO(saved({name: weights[name]}))) as source, zipfile.ZipFile(made, "w") as target:
        for record in source.namelist():
            content = source.read(record)
            # the storage's length and the tensor's shape, 7,777 and 7,777 -> 60,001
            target.writestr(record, content.replace(struct.pack("<H", 7777), struct.pack("<H", 60_001)))
    return made.getvalue()


def _set(*keys: object):
    """Change: the last key's value of the place that the keys lead to."""

    def change(config: dict) -> None:
        *path, name, value = keys
        for key in path:
            config = config[key]
        config[name] = value

    return change


BLOCK = ("encoder", "jasper", 1)
NASTY = "Bad\x1b[2J\nerror: fine"


def _config(text: bytes):
    return lambda path, members: write_archive(path, {"model_config.yaml": text})


def _expanded(path: Path, members: dict[str, bytes]) -> None:
    """Weights whose strides of 0 stand for ten million values."""
    content = io.BytesIO()
    torch.save({"lm_head": torch.ones(1).expand(10_000_000)}, content)
    write_archive(path, {**members, "model_weights.ckpt": content.getvalue()})


BAD = {
    "no tar": (lambda path, members: path.write_bytes(b"not an archive" * 100), "this is no tar or tar.gz archive"),
    "empty": (lambda path, members: path.write_bytes(b""), "this is no tar or tar.gz archive"),
    "cut short": (_cut(packed=False), "more than the archive of 3,000 can hold"),
    "cut gzip": (_cut(packed=True), "compression of this archive is broken, or the file is cut short"),
    "a folder": (lambda path, members: path.mkdir(), "this is no file"),
    "missing": (lambda path, members: None, "there is no such file"),
    "no config": (_without("model_config.yaml"), "has no model_config.yaml, found model_weights.ckpt"),
    "no weights": (_without("model_weights.ckpt"), "has no model_weights.ckpt, found model_config.yaml"),
    "10 GB declared": (_huge_tar, "declared to have 10,737,418,240 bytes, more than the archive"),
    "10 GB of zeros": (_sparse_tar, "model_weights.ckpt has 10,737,418,240 bytes, expected at most 4,294,967,296"),
    "gzip of zeros": (_huge_gzip, "unpacks to more than"),
    "outside": (_with_member(_member("../outside", size=1), b"x"), "holds ../outside, a path that points outside"),
    "absolute": (_with_member(_member("/tmp/outside", size=1), b"x"), "/tmp/outside, a path that points outside"),
    "link": (_with_member(_member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "link, which is a link"),
    "device": (_with_member(_member("null", type=tarfile.CHRTYPE)), "null, which is a link, a device"),
    "twice": (_with_member(_member("./model_weights.ckpt", size=1), b"x"), "model_weights.ckpt twice"),
    "config is a list": (lambda path, members: write_archive(path, {"model_config.yaml": b"- 1\n"}), "no mapping of options"),
    "merge tag": (_config(b"a: &a {x: 1}\nb: {!!merge m: *a}\n"), r"plain values \(tags\)"),
    "merge key": (_config(b"a: &a {x: 1}\nb: {<<: *a}\n"), r"plain values \(merge keys\)"),
    "number to the base of 60": (_config(b"a: " + b":".join([b"1"] * 600) + b"\n"), "a number of too many digits"),
    "millions of values": (_config(b"a: [" + b"a," * 10_001 + b"]\n"), "too many values"),
    "one number for many": (_expanded, "holds tensors of 40,000,000 bytes in a file of"),
    "python object": (
        lambda path, members: write_archive(path, {"model_config.yaml": b"a: !!python/object/apply:os.system [true]\n"}),
        "cannot be read as YAML",
    ),
    "another class": (
        _configured(_set("target", "nemo.collections.asr.models.rnnt_models.EncDecRNNTModel")),
        "target class is 'nemo.collections.asr.models.rnnt_models.EncDecRNNTModel', supported are EncDecCTCModel and",
    ),
    "conformer": (_configured(_set("encoder", "_target_", "nemo.collections.asr.modules.ConformerEncoder")), "is a ConformerEncoder, supp"),
    "dense": (_configured(_set(*BLOCK, "residual_dense", True)), r"jasper\[1\]\.residual_dense is True, expected false"),
    "groups": (_configured(_set(*BLOCK, "groups", 4)), r"jasper\[1\]\.groups is 4, expected 1, as nothing"),
    "heads": (_configured(_set(*BLOCK, "heads", 8)), r"jasper\[1\]\.heads is 8"),
    "stride in the branch": (_configured(_set(*BLOCK, "stride", [2])), r"strides by 2, but its residual branch does not"),
    "norm": (_configured(_set("encoder", "normalization_mode", "layer")), "normalization_mode is 'layer', expected batch, as nothing"),
    "activation": (_configured(_set("encoder", "activation", "swish")), "activation is 'swish', expected relu, as nothing"),
    "splicing": (_configured(_set("preprocessor", "frame_splicing", 3)), "preprocessor.frame_splicing is 3, expected 1, as nothing"),
    "clamp": (_configured(_set("preprocessor", "log_zero_guard_type", "clamp")), "log_zero_guard_type is 'clamp', expected add"),
    "class that clears the screen": (_configured(_set("encoder", "_target_", f"x.{NASTY}")), r"is a Bad\\x1b\[2J\\nerror: fine, supp"),
    "preprocessor that clears the screen": (_configured(_set("preprocessor", "_target_", NASTY)), r"is a Bad\\x1b\[2J\\nerror: fine, supp"),
    "mfcc": (_configured(_set("preprocessor", "_target_", "x.AudioToMFCCPreprocessor")), "the preprocessor is a AudioToMFCCPreprocessor"),
    "window": (_configured(_set("preprocessor", "window", "hamming")), "featurizer.window of the archive is not the one that the config"),
    "filters": (_configured(_set("preprocessor", "highfreq", 7000)), "featurizer.fb of the archive is not the one that the config"),
    "classes": (_configured(_set("decoder", "num_classes", 30)), "num_classes is 30, but decoder.vocabulary has 28 labels"),
    "no vocabulary": (_configured(_set("decoder", "vocabulary", None)), "decoder.vocabulary is missing"),
    "label of another type": (_configured(_set("decoder", "vocabulary", 3, False)), "label 3 of the vocabulary is a bool"),
    "label twice": (_configured(_set("decoder", "vocabulary", 3, "a")), "holds 'a' twice"),
    "tokenizer of many languages": (
        _configured(lambda config: config.update(target=BPE_TARGET, tokenizer={"type": "agg", "langs": {}})),
        "tokenizer.type is 'agg', expected bpe",
    ),
    "no tokenizer": (
        _configured(lambda config: config.update(target=BPE_TARGET, tokenizer={"type": "bpe", "model_path": "nemo:../../t.model"})),
        "the archive has no ../../t.model",
    ),
    "alias bomb": (
        lambda path, members: write_archive(path, {"model_config.yaml": _alias_bomb("target: *i\n")}),
        r"target class is \[\[\.\.\.\], \[\.\.\.\]",
    ),
    "merge bomb": (lambda path, members: write_archive(path, {"model_config.yaml": b"a: &a {x: 1}\nb: {<<: [*a, *a]}\n"}), "merge keys"),
    "deep": (lambda path, members: write_archive(path, {"model_config.yaml": b"a: " + b"[" * 200_000}), "nested too deep"),
    "many convolutions": (_configured(_set(*BLOCK, "repeat", 10**9)), r"repeat is 1000000000, expected a whole number from 1 to 1000"),
    "other weights": (
        _weighted(lambda weights: [weights.pop("decoder.decoder_layers.0.bias"), weights.update(extra=torch.zeros(2)),
                                   weights.update({"encoder.encoder.0.mconv.0.conv.weight": torch.zeros(16, 1, 7)})]),
        r"do not fit the config: missing decoder.decoder_layers.0.bias, unexpected extra, "
        r"encoder.encoder.0.mconv.0.conv.weight has shape \(16, 1, 7\) instead of \(16, 1, 5\)$",
    ),
    "many differences": (_weighted(lambda weights: [weights.pop(name) for name in list(weights)]), "missing encoder.* and 57 more"),
    "infinite": (
        _weighted(lambda weights: weights["decoder.decoder_layers.0.bias"].fill_(math.nan)),
        "decoder.decoder_layers.0.bias holds values that are infinite or not a number",
    ),
    "whole numbers": (
        _weighted(lambda weights: weights.update({"decoder.decoder_layers.0.bias": torch.zeros(29, dtype=torch.int64)})),
        "bias holds int64, expected floating point",
    ),
    "no tensors": (_weighted(lambda weights: weights.update(epoch=3)), "holds more than tensors by name"),
    "legacy": (_weighted(lambda weights: pickle.dumps(weights, protocol=2)), "not in torch's zip format"),
    "broken zip": (_weighted(lambda weights: saved(weights)[:-100]), "broken or truncated zip"),
    "huge record": (_weighted(_huge_record), "declares [0-9,]{13,} bytes in a file of"),
    "long storage": (_weighted(_long_storage), "cannot be read as tensors"),
}  # fmt: skip


def _alias_bomb(last: str) -> bytes:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
    return ("\n".join(lines) + "\n" + last).encode()


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(tmp_path, members, case, monkeypatch):
    # what goes past these takes seconds to make and to read
    monkeypatch.setattr(nemo_archive, "_MOST_CONFIG_EVENTS", 10_000)
    monkeypatch.setattr(nemo_archive, "_ALWAYS_ALLOWED_GROWTH", 1 << 20)
    make, message = BAD[case]
    folder = tmp_path / "sandbox"
    folder.mkdir()
    path = tmp_path / "bad.nemo"
    make(path, members)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        import_nemo(path, folder / "out")
    text = str(refused.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    assert "weights_only" not in text
    assert len(text) - len(str(path)) < 400
    assert not any(folder.iterdir())


def test_a_pickle_that_runs_code_is_refused(tmp_path, members):
    made = tmp_path / "made by the pickle"

    def change(weights: dict) -> None:
        weights["decoder.decoder_layers.0.bias"] = _Malicious(str(made))

    _weighted(change)(tmp_path / "bad.nemo", members)
    with pytest.raises(ValueError, match=r"holds more than tensors \(posix.mkdir\), which is not read"):
        import_nemo(tmp_path / "bad.nemo", tmp_path / "out")
    assert not made.exists()
    assert not (tmp_path / "out").exists()


def test_config_without_the_c_loader(monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert parse_config(b"a: {b: [1, 'n', n]}") == {"a": {"b": [1, "n", "n"]}}
    with pytest.raises(ValueError, match="nested too deep"):
        parse_config(b"a: " + b"[" * 5000)


def test_mutated_archives():
    """In a process of its own, so that a crash of a library is seen; `tests/benchmarks/fuzz_nemo.py 1000` takes more of them."""
    fuzz = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "fuzz_nemo.py"))["main"]
    process = multiprocessing.get_context("fork")
    figures, sending = process.Pipe(duplex=False)
    child = process.Process(target=lambda: sending.send(fuzz(100, seed=1)))
    child.start()
    sending.close()  # else a child that crashed is waited for
    assert figures.poll(120)
    found = figures.recv()
    child.join()
    assert child.exitcode == 0
    assert found["read"] + found["refused"] == 100
    assert found["refused"] > 40
    assert found["longest_message"] < 400
    assert found["grown_mb"] < 300


def _blank_first(scores):
    """NeMo's scores (..., V + 1), whose blank is the last, in our order."""
    return np.concatenate([scores[..., -1:], scores[..., :-1]], axis=-1)


def _without_space(text: str, labels: list[str]) -> str:
    """NeMo's rule for punctuation (ctc_decoding.py, decode_tokens_to_str_with_strip_punctuation)."""
    special = re.compile(r"^\[.*\]$|^<.*>$|^##|^▁|^\s*$")
    marks = {char for label in labels if not special.match(label) for char in label if unicodedata.category(char).startswith("P")}
    return re.sub(rf"(\s)({'|'.join(map(re.escape, sorted(marks)))})", r"\2", text) if marks else text


def _nemo_log_probs(options: dict, weights: dict, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """NeMo's masked encoder and decoder, from its YAML and names: features (B, M, F) -> log-probabilities (B, T, V + 1), frames (B,)."""
    hidden = features
    for index, block in enumerate(options["encoder"]["jasper"]):
        prefix = f"encoder.encoder.{index}"
        block_input, block_lengths = hidden, lengths
        kernel, stride, dilation = block["kernel"][0], block["stride"][0], block["dilation"][0]
        place = 0
        for repeat in range(block["repeat"]):
            step = 1 if block.get("stride_last") and repeat + 1 < block["repeat"] else stride
            if block["separable"]:
                hidden, lengths = _conv(hidden, lengths, weights, f"{prefix}.mconv.{place}", kernel, step, dilation, hidden.shape[1])
                hidden, lengths = _conv(hidden, lengths, weights, f"{prefix}.mconv.{place + 1}", 1, 1, 1, 1)
                place += 2
            else:
                hidden, lengths = _conv(hidden, lengths, weights, f"{prefix}.mconv.{place}", kernel, step, dilation, 1)
                place += 1
            hidden = _norm(hidden, weights, f"{prefix}.mconv.{place}")
            place += 1
            if repeat + 1 < block["repeat"]:
                hidden = hidden.relu()
                place += 2
        if block["se"]:
            kept = hidden * _valid(hidden, lengths)
            mean = kept.sum(-1) / lengths[:, None]
            gate = (mean @ weights[f"{prefix}.mconv.{place}.fc.0.weight"].T).relu() @ weights[f"{prefix}.mconv.{place}.fc.2.weight"].T
            hidden = kept * gate.sigmoid()[:, :, None]
        if block["residual"]:
            step = stride if block.get("residual_mode") == "stride_add" else 1
            branch, _ = _conv(block_input, block_lengths, weights, f"{prefix}.res.0.0", 1, step, 1, 1)
            hidden = hidden + _norm(branch, weights, f"{prefix}.res.0.1")
        hidden = hidden.relu()
    head = "decoder.decoder_layers.0"
    scores = functional.conv1d(hidden, weights[f"{head}.weight"], weights[f"{head}.bias"])
    return scores.transpose(1, 2).log_softmax(-1), lengths


def _valid(hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return (torch.arange(hidden.shape[-1]) < lengths[:, None])[:, None, :]


def _conv(hidden, lengths, weights, name, kernel, stride, dilation, groups):
    weight = weights.get(f"{name}.conv.weight", weights.get(f"{name}.weight"))
    padding = dilation * (kernel - 1) // 2
    assert weight.shape[-1] == kernel
    hidden = functional.conv1d(hidden * _valid(hidden, lengths), weight, None, stride, padding, dilation, groups)
    return hidden, (lengths + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _norm(hidden: torch.Tensor, weights: dict, name: str) -> torch.Tensor:
    mean, variance, scale, shift = (weights[f"{name}.{part}"][:, None] for part in ("running_mean", "running_var", "weight", "bias"))
    return (hidden - mean) / (variance + 1e-3).sqrt() * scale + shift
