"""Few trained weights in a model that stays as it is: LoRA, and the language adapters of MMS."""

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from hfasr.extras import require
from hfasr.models.encoder import ConvEncoderConfig
from hfasr.models.head import HEADS
from hfasr.models.load import encoder_of
from hfasr.models.speed.fast_training import encoder_layers
from hfasr.training.checkpoints import write_weights
from hfasr.training.optimization import keep_frozen_norms

LORA_FOLDER = "lora"
LORA_WEIGHTS = "adapter_model.safetensors"
# width of the adapters of facebook/mms-1b-all
ADAPTER_WIDTH = 16
# its attention hands the weights of these to torch's fused function, past the module that LoRA puts in their place
_BYPASSED = {"wavlm": re.compile(r"\.attention\.(q|k|v|out)_proj$")}
_LORA = re.compile(r"\.(lora_[AB])\.default\.")


def add_lora(model: PreTrainedModel, rank: int, alpha: float | None = None) -> None:
    """Train low-rank updates of the linear maps in the layers (Hu et al. 2021, arXiv 2106.09685), and the head whole.

    Each weight W becomes W + (alpha / rank) B A, with B zero at first. Convolutions and norms stay as they are.

    Args:
        model: A transformer for CTC; it is changed in place and keeps its class.
        rank: Columns of B.
        alpha: Twice the rank when None.

    Raises:
        ModuleNotFoundError: peft is not installed.
        ValueError: A family without linear maps in its layers or with a head that its encoder shares, or a model with LoRA already.
    """
    peft = require("peft", extra="lora")
    if hasattr(model, "peft_config"):
        raise ValueError("this model has adapters of peft already; load it anew for another training")
    if {*getattr(model, _head_name(model)).parameters()} & {*encoder_of(model).parameters()}:
        raise ValueError(
            f"the head of this {model.config.model_type} is a part of its encoder too, which LoRA leaves as it is: train it whole, with "
            "lora_rank 0"
        )
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank if alpha is None else alpha, target_modules=_linear_maps(model))
    peft.inject_adapter_in_model(config, model)
    getattr(model, _head_name(model)).requires_grad_(True)
    keep_frozen_norms(model)


def merged_state_dict(model: PreTrainedModel, state_dict: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Return the weights of a model with LoRA as its family names them, the updates added to what they update.

    Args:
        model: With LoRA.
        state_dict: Its state, gathered by the caller; the model's own when None.
    """
    state = dict(model.state_dict() if state_dict is None else state_dict)
    merged = {}
    for name, value in state.items():
        if _LORA.search(name):
            continue
        if name.endswith(".base_layer.weight"):
            place = name.removesuffix(".base_layer.weight")
            down, up = (state[f"{place}.lora_{part}.default.weight"].float() for part in "AB")
            value = (value.float() + model.get_submodule(place).scaling["default"] * (up @ down)).to(value.dtype)
        merged[name.replace(".base_layer.", ".")] = value
    return merged


def write_lora(model: PreTrainedModel, folder: Path, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write updates and head as peft does, for `PeftModel.from_pretrained` over the base model with a head of the same size.

    Args:
        model: With LoRA.
        folder: Made if it is not there.
        state_dict: As in `merged_state_dict`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() if state_dict is None else state_dict
    write_weights(folder / LORA_WEIGHTS, {_peft_name(name): state[name] for name in _trained_names(model)})
    config = copy.copy(model.peft_config["default"])
    config.modules_to_save, config.inference_mode = [_head_name(model)], True
    config.base_model_name_or_path = model.config._name_or_path or None
    config.save_pretrained(folder)


def load_lora(model: PreTrainedModel, checkpoint: Path) -> None:
    """Load the updates and the head of a checkpoint into a model with the same base.

    Args:
        model: With LoRA.
        checkpoint: Folder with the merged model, and the updates in `lora/`.

    Raises:
        ValueError: The checkpoint has no updates, others than the model's, or was trained from another base model.
    """
    if not (path := checkpoint / LORA_FOLDER / LORA_WEIGHTS).is_file():
        raise ValueError(f"{checkpoint} was not trained with LoRA: it has no {LORA_FOLDER}/{LORA_WEIGHTS}; resume without lora_rank")
    stored, state = load_file(path), model.state_dict()
    ours = {_peft_name(name): state[name] for name in _trained_names(model)}
    config = json.loads((path.parent / "adapter_config.json").read_text(encoding="utf-8"))
    for name in ("r", "lora_alpha"):
        if config[name] != (now := getattr(model.peft_config["default"], name)):
            raise ValueError(f"{checkpoint} was trained with LoRA of {name} {config[name]}, this command has {now}; resume with the same")
    differing = [name for name in {**ours, **stored} if name not in ours or name not in stored or ours[name].shape != stored[name].shape]
    if differing:
        raise ValueError(f"{path} does not fit this model, as in {differing[0]}; resume from the base model it was made with")
    if (merged := checkpoint / "model.safetensors").is_file():
        _check_base(merged, state, {name.removeprefix("base_model.model.") for name in ours})
    with torch.no_grad():
        for name, value in stored.items():
            ours[name].copy_(value)


def train_language_adapter(model: PreTrainedModel) -> None:
    """Train only the adapter layers and the head, as for a language of MMS (Pratap et al. 2023, arXiv 2305.13516).

    Raises:
        ValueError: The family, or this model, has no adapter layers.
    """
    if not hasattr(model, "_get_adapters") or not getattr(model.config, "do_stable_layer_norm", False):
        raise ValueError(
            f"adapter_language is for wav2vec2 models with norms before attention, such as facebook/mms-1b-all; "
            f"this {model.config.model_type} has no language adapters: use --lora_rank"
        )
    if model.config.adapter_attn_dim is None:
        raise ValueError(f'this model has no adapter layers; load it with config_overrides={{"adapter_attn_dim": {ADAPTER_WIDTH}}}')
    model.requires_grad_(False)
    for parameter in model._get_adapters().values():
        parameter.requires_grad_(True)


def write_language_adapter(
    model: PreTrainedModel, folder: Path, language: str, state_dict: Mapping[str, torch.Tensor] | None = None
) -> Path:
    """Write adapter layers and head as `adapter.<language>.safetensors`, which `load_adapter` of Transformers reads.

    Args:
        model: With adapter layers.
        folder: Of the checkpoint.
        language: Its code, such as kir.
        state_dict: As in `merged_state_dict`.

    Returns:
        The file's path.
    """
    state = model.state_dict() if state_dict is None else state_dict
    path = folder / f"adapter.{language}.safetensors"
    write_weights(path, {name: state[name] for name in model._get_adapters()})
    return path


def saved_parameters(model: PreTrainedModel) -> int:
    """Count the parameters of the model as it is saved, with LoRA merged."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not _LORA.search(name))


def _linear_maps(model: PreTrainedModel) -> list[str]:
    kind = model.config.model_type
    inside = (
        set() if isinstance(model.config, ConvEncoderConfig) else {module for layer in encoder_layers(model) for module in layer.modules()}
    )
    names = [name for name, module in model.named_modules() if module in inside and isinstance(module, nn.Linear)]
    if kind in _BYPASSED:
        names = [name for name in names if not _BYPASSED[kind].search(name)]
    if not names:
        raise ValueError(
            f"lora_rank is for transformers, whose layers hold linear maps; a {kind} has none: train it whole, with lora_rank 0"
        )
    return names


def _head_name(model: PreTrainedModel) -> str:
    return next(name for name in HEADS if hasattr(model, name))


def _trained_names(model: PreTrainedModel) -> list[str]:
    head = f"{_head_name(model)}."
    return [name for name, _ in model.named_parameters() if _LORA.search(name) or name.startswith(head)]


def _peft_name(name: str) -> str:
    """Name a parameter as peft's files do."""
    return "base_model.model." + _LORA.sub(r".\1.", name)


def _check_base(merged: Path, state: Mapping[str, torch.Tensor], trained: set[str]) -> None:
    """Compare what LoRA leaves alone, such as norms, with a merged checkpoint."""
    with safe_open(merged, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            if name in state and name not in trained and not torch.equal(file.get_tensor(name), state[name].cpu()):
                raise ValueError(f"{merged.parent} was trained from another base model than this one: {name} differs")
