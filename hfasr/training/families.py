"""Numbers to train each family of models with: those its authors published, the reason beside what differs.

A recipe takes the preset of what it starts from, adds what its corpus asks for, and flags win over both.
"""

from dataclasses import dataclass
from functools import cache

import torch
from transformers import PreTrainedConfig

from hfasr.models.encoder import ConvEncoderConfig
from hfasr.models.load import BUILT_IN, model_config
from hfasr.training.arguments import AUTO, CTCTrainingArguments


@dataclass(frozen=True)
class Preset:
    """What a model is trained with.

    Args:
        numbers: Fields of `CTCTrainingArguments`.
        settings: Fields of the model's configuration, some of which a family may lack.
    """

    numbers: dict
    settings: dict


# fairseq's optimiser and schedule for CTC on wav2vec 2.0, in all of examples/wav2vec/config/finetuning/*.yaml; it clips no gradients.
_FAIRSEQ = {
    "adam_beta2": 0.98, "weight_decay": 0.0, "tri_stage": [0.1, 0.4, 0.5], "tri_stage_final_scale": 0.05, "max_grad_norm": 0.0,
    "eval_strategy": "steps", "save_strategy": "steps", "logging_steps": 50,
}  # fmt: skip
# One hour of phonemes, as XLSR-53 (Conneau et al. 2020, arXiv 2006.13979) and UniSpeech (Wang et al. 2021, arXiv 2101.07597) were
# compared on Common Voice: 20,000 updates of 4 GPUs x 1,000,000 samples (62.5 s), the encoder frozen for 2,000, much dropout and masking.
_HOUR = {
    "learning_rate": 2e-5, "max_steps": 20_000, "freeze_encoder_updates": 2_000, "update_seconds": 250.0, "max_batch_seconds": 62.5,
    "eval_steps": 500, "save_steps": 500,
}  # fmt: skip
_HOUR_SETTINGS = {
    "mask_time_prob": 0.75, "mask_time_length": 10, "mask_feature_prob": 0.25, "mask_feature_length": 64, "layerdrop": 0.1,
    "hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1, "feat_proj_dropout": 0.1, "final_dropout": 0.1,
}  # fmt: skip
# A hundred hours and more: vox_100h.yaml, 80,000 updates of 4 GPUs x 5 batches x 1,280,000 samples (80 s), frozen for 10,000.
_HUNDRED_HOURS = {
    "learning_rate": 3e-5, "max_steps": 80_000, "freeze_encoder_updates": 10_000, "update_seconds": 1600.0, "max_batch_seconds": 80.0,
    "eval_steps": 2_000, "save_steps": 2_000,
}  # fmt: skip
_HUNDRED_HOURS_SETTINGS = {
    "mask_time_prob": 0.5, "mask_time_length": 10, "mask_feature_prob": 0.5, "mask_feature_length": 64, "layerdrop": 0.1,
    "activation_dropout": 0.1, "attention_dropout": 0.0, "hidden_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
}  # fmt: skip

# base_1h.yaml and base_100h.yaml: models of 95 M parameters (wav2vec2, HuBERT, WavLM base) take a higher rate on an hour, more time masks
# on a hundred, where they are never frozen.
_BASE = {1: {"learning_rate": 5e-5}, 100: {"freeze_encoder_updates": 0}}
_BASE_SETTINGS = {"mask_time_prob": 0.65}
# Hugging Face's "Fine-Tune W2V2-Bert for low-resource ASR" (2024), on 14 h: 5e-5, no dropout, masks or LayerDrop. Its `add_adapter` is left
# as the checkpoint has it: it halves the frames, of which phonemes and fast speech need all.
_W2V_BERT = {"learning_rate": 5e-5}
_STILL = {
    "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0, "conformer_conv_dropout": 0.0,
}  # fmt: skip
# Hugging Face's "Fine-tuning MMS Adapter Models" (2023): 1e-3 for adapters, no dropout or LayerDrop. They learn within minutes, hence a
# tenth of the updates; below them nothing is trained, so nothing waits for the head.
_ADAPTER = {"learning_rate": 1e-3, "freeze_encoder_updates": 0}
_ADAPTER_UPDATES = 0.1
# LoRA wants about ten times the rate of training all weights (Schulman et al. 2025, "LoRA Without Regret").
_LORA_RATE = 10

# NeMo's examples/asr/conf/quartznet/quartznet_15x5.yaml, whose 5 epochs on one GPU only show that it runs. What differs here:
# - Batches by seconds: a recipe gives those of the file's 32 utterances. An update takes 8 of them, of the 8 GPUs that trained the
#   released model (NGC, nvidia/quartznet15x5), where the file has one; 100 epochs are our choice.
# - bf16 on a GPU that has it (float32 there); weight decay leaves biases and norms alone; silence is not trimmed, no dither added.
# - The loss is per label, there per utterance. NovoGrad scales each layer's gradient by its own norm, so that changes nothing.
_QUARTZNET = {
    "novograd": [0.8, 0.5], "learning_rate": 0.01, "weight_decay": 1e-3, "lr_scheduler_type": "cosine", "num_train_epochs": 100,
    "max_seconds": 16.7, "max_grad_norm": 0.0, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 50,
}  # fmt: skip
_QUARTZNET_SETTINGS = {"freq_masks": 0, "time_masks": 0, "rect_masks": 5, "rect_freq": 50, "rect_time": 120}
# NeMo's examples/asr/conf/citrinet/citrinet_1024.yaml, with its 100 epochs. What differs here, beside the last two points above:
# - An update takes the file's 1,024 utterances as 8 batches, for a machine of 8 GPUs; there 32 GPUs take 32 utterances each.
# - bf16 on a GPU that has it (float32 there, with the same 5,000 updates of warm-up that the file advises for mixed precision).
_CITRINET = {
    "novograd": [0.8, 0.25], "learning_rate": 0.05, "weight_decay": 1e-3, "warmup_steps": 5_000,
    "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}, "num_train_epochs": 100,
    "max_seconds": 20.0, "max_grad_norm": 0.0, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 50,
}  # fmt: skip
_CITRINET_SETTINGS = {"freq_masks": 2, "freq_width": 27, "time_masks": 10, "time_width": 0.05}
# A trained encoder keeps what it knows at a tenth of the rate; Citrinet's then needs a shorter warm-up.
_QUARTZNET_TRAINED = {"learning_rate": 1e-3}
_CITRINET_TRAINED = {"learning_rate": 5e-3, "warmup_steps": 1_000}


def preset(recipe: CTCTrainingArguments, base_model: str, *, hours: int, batch_seconds: float, batches: int = 8) -> Preset:
    """Return what a starting point is trained with.

    Args:
        recipe: Says whether few weights are trained: `lora_rank`, `adapter_language`.
        base_model: What `load_model` starts from.
        hours: Of speech that the published numbers were for: 1 or 100. For transformers.
        batch_seconds: Padded audio per batch and device for convolutional models, whose batch norms depend on it.
        batches: Of those, in an update over all devices.

    Raises:
        FileNotFoundError, OSError, ValueError: As `load_model`.
    """
    family = family_of(base_model)
    if family in ("quartznet", "citrinet"):
        return _convolutional(base_model, family, batch_seconds, batches)
    numbers, settings = (_HOUR, _HOUR_SETTINGS) if hours == 1 else (_HUNDRED_HOURS, _HUNDRED_HOURS_SETTINGS)
    if family == "base":
        numbers, settings = numbers | _BASE[hours], settings | _BASE_SETTINGS
    elif family == "w2v-bert":
        numbers, settings = numbers | _W2V_BERT, settings | _STILL
    if recipe.adapter_language is not None:
        numbers = numbers | _ADAPTER | {"max_steps": round(numbers["max_steps"] * _ADAPTER_UPDATES)}
        settings = settings | _STILL
    elif recipe.lora_rank:
        numbers = numbers | {"learning_rate": numbers["learning_rate"] * _LORA_RATE}
    return Preset(_FAIRSEQ | numbers | _machine() | ({"max_batch_seconds": AUTO} if torch.cuda.is_available() else {}), settings)


def family_of(base_model: str) -> str:
    """Return whose numbers a starting point takes: quartznet, citrinet, w2v-bert, base or large.

    "large" are transformers from 300 M parameters: wav2vec2-large, XLS-R, MMS, UniSpeech, HuBERT, WavLM, Parakeet.

    Raises:
        FileNotFoundError, OSError, ValueError: As `load_model`.
    """
    config = start_config(base_model)
    if isinstance(config, ConvEncoderConfig):
        return config.model_type
    if config.model_type == "wav2vec2-bert":
        return "w2v-bert"
    return "base" if getattr(config, "hidden_size", 1024) < 1024 else "large"


def is_convolutional(base_model: str) -> bool:
    """Tell whether a starting point is a QuartzNet or a Citrinet, and not a transformer.

    Raises:
        FileNotFoundError, OSError, ValueError: As `load_model`.
    """
    return isinstance(start_config(base_model), ConvEncoderConfig)


def is_pretrained(base_model: str) -> bool:
    """Tell whether there is something to fine-tune, rather than a built-in configuration with random weights."""
    return base_model not in BUILT_IN


@cache
def start_config(base_model: str) -> PreTrainedConfig:
    """Read a starting point's configuration once a run: a packed .nemo archive is unpacked whole for it."""
    return model_config(base_model)


def _convolutional(base_model: str, family: str, batch_seconds: float, batches: int) -> Preset:
    if family == "quartznet":
        numbers, trained, settings = _QUARTZNET, _QUARTZNET_TRAINED, _QUARTZNET_SETTINGS
    else:
        numbers, trained, settings = _CITRINET, _CITRINET_TRAINED, _CITRINET_SETTINGS
    size = {"max_batch_seconds": batch_seconds, "update_seconds": batches * batch_seconds}
    return Preset(numbers | size | (trained if is_pretrained(base_model) else {}) | _machine(), settings)


def _machine() -> dict:
    return {"bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported()}
