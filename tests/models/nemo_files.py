"""Writes `.nemo` archives as NeMo 3.0.0 does, of any configuration and with random weights."""

import gzip
import io
import re
import tarfile
from pathlib import Path

import torch
import yaml
from transformers.audio_utils import mel_filter_bank

from hfasr.models.citrinet import CitrinetConfig, CitrinetForCTC
from hfasr.models.quartznet import QuartzNetForCTC

LATIN = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]
_CLASS = "nemo.collections.asr.models.ctc_models.EncDecCTCModel"
_MODULES = "nemo.collections.asr.modules"


def nemo_config(config, labels: list[str], **preprocessor) -> dict:
    """Configuration of a NeMo model that computes what ours of `config` does, `labels` not checked against it."""
    jasper = [
        {
            "filters": block["filters"],
            "kernel": [block["kernel"]],
            "repeat": block.get("repeat", 1),
            "stride": [block.get("stride", 1)],
            "dilation": [block.get("dilation", 1)],
            "dropout": block.get("dropout", 0.0),
            "residual": block.get("residual", False),
            "separable": block.get("separable", True),
            "se": block.get("squeeze_excite", False),
            "se_reduction_ratio": block.get("se_reduction", 8),
            "se_context_size": block.get("se_context", -1),
            **({"stride_last": True, "residual_mode": "stride_add"} if block.get("stride_last") else {}),
        }
        for block in config.blocks
    ]
    options = {"sample_rate": 16_000, "window_size": 0.02, "window_stride": 0.01, "features": config.num_mel_bins, "n_fft": 512}
    return {
        "preprocessor": {"_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor", **options, **preprocessor},
        "spec_augment": {"_target_": f"{_MODULES}.SpectrogramAugmentation", "rect_masks": 5, "rect_time": 120, "rect_freq": 50},
        "encoder": {
            "_target_": f"{_MODULES}.ConvASREncoder",
            "feat_in": config.num_mel_bins,
            "activation": "relu",
            "conv_mask": True,
            "jasper": jasper,
        },
        "decoder": {
            "_target_": f"{_MODULES}.ConvASRDecoder",
            "feat_in": config.hidden_size,
            "num_classes": len(labels),
            "vocabulary": labels,
        },
        "labels": ["stale", "labels"],
        "target": _CLASS,
        "nemo_version": "3.0.0",
    }


def nemo_weights(config, classes: int, *, masked: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under NeMo's names; batch norms have statistics of their own, so that every one of them counts."""
    torch.manual_seed(seed)
    config = type(config).from_dict({**config.to_dict(), "vocab_size": classes + 1})
    model = (CitrinetForCTC if isinstance(config, CitrinetConfig) else QuartzNetForCTC)(config)
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or (name.endswith("weight") and "norm" in name):
            tensor = 0.5 + torch.rand_like(tensor)
        elif tensor.is_floating_point() and ("norm" in name or name == "lm_head.bias"):
            tensor = torch.randn_like(tensor)
        weights[_nemo_name(name, config.blocks, masked)] = tensor.unsqueeze(-1) if name == "lm_head.weight" else tensor.clone()
    return weights


def front_end_buffers(preprocessor: dict) -> dict[str, torch.Tensor]:
    """Window and mel filters as NeMo saves them beside the weights."""
    rate, n_fft = preprocessor["sample_rate"], preprocessor["n_fft"]
    length = preprocessor.get("n_window_size") or int(preprocessor["window_size"] * rate)
    window = getattr(torch, f"{preprocessor.get('window', 'hann')}_window")(length, periodic=False)
    edges = preprocessor.get("lowfreq", 0), preprocessor.get("highfreq") or rate / 2
    filters = mel_filter_bank(n_fft // 2 + 1, preprocessor["features"], *edges, rate, norm="slaney", mel_scale="slaney")
    return {"preprocessor.featurizer.window": window, "preprocessor.featurizer.fb": torch.from_numpy(filters.T.copy()).float()[None]}


def saved(weights: dict[str, torch.Tensor]) -> bytes:
    """model_weights.ckpt."""
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


def write_archive(path: Path, members: dict[str, bytes], *, packed: bool = False) -> Path:
    """Write a tar, or a tar.gz, with members named as NeMo names them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:") as archive:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mtime = len(content), 1700000000.25  # a fraction needs a pax header, as in NeMo's own archives
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(file.getvalue(), 1) if packed else file.getvalue())
    return path


def write_nemo(
    path: Path,
    config,
    labels: list[str] = LATIN,
    *,
    change=None,
    masked=True,
    dtype=torch.float32,
    files=None,
    packed=False,
    **preprocessor,
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Write an archive.

    Args:
        path: of the archive.
        config: ours; its `vocab_size` is not looked at.
        labels: NeMo's.
        change: called with the configuration, to change it in place.
        masked: as `conv_mask`.
        dtype: of the weights.
        files: more members, by name.
        packed: as tar.gz.
        preprocessor: options.

    Returns:
        The configuration and the weights in it, without the buffers of the front end.
    """
    options = nemo_config(config, labels, **preprocessor)
    options["encoder"]["conv_mask"] = masked
    weights = nemo_weights(config, len(labels), masked=masked)
    stored = {**front_end_buffers(options["preprocessor"]), **weights}
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in stored.items()}
    if change is not None:
        change(options)
    text = yaml.dump(options, allow_unicode=True, sort_keys=False)
    write_archive(path, {"model_config.yaml": text.encode(), "model_weights.ckpt": saved(stored), **(files or {})}, packed=packed)
    return options, weights


def _nemo_name(name: str, blocks: list[dict], masked: bool) -> str:
    """NeMo's name of one of our weights."""
    conv = "conv.weight" if masked else "weight"
    if match := re.fullmatch(r"\w+\.blocks\.(\d+)\.layers\.(\d+)\.(\w+)\.(\w+)", name):
        block, layer, part, weight = int(match[1]), int(match[2]), match[3], match[4]
        separable = blocks[block].get("separable", True)
        place = layer * (5 if separable else 4) + {"depthwise": 0, "pointwise": 1, "conv": 0, "norm": 2 if separable else 1}[part]
        return f"encoder.encoder.{block}.mconv.{place}.{weight if part == 'norm' else conv}"
    if match := re.fullmatch(r"\w+\.blocks\.(\d+)\.squeeze_excite\.(down|up)\.weight", name):
        block = blocks[int(match[1])]
        place = (block.get("repeat", 1) - 1) * (5 if block.get("separable", True) else 4) + (3 if block.get("separable", True) else 2)
        return f"encoder.encoder.{match[1]}.mconv.{place}.fc.{0 if match[2] == 'down' else 2}.weight"
    if match := re.fullmatch(r"\w+\.blocks\.(\d+)\.residual\.(conv|norm)\.(\w+)", name):
        return f"encoder.encoder.{match[1]}.res.0.{f'0.{conv}' if match[2] == 'conv' else f'1.{match[3]}'}"
    return name.replace("lm_head", "decoder.decoder_layers.0")
