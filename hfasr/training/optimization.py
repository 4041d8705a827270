"""Which weights are trained and how fast: learning rates by update and by depth, frozen layers."""

import math
from collections.abc import Collection, Mapping

from torch import nn
from transformers import PreTrainedModel

from hfasr.models.head import HEADS
from hfasr.models.load import encoder_of
from hfasr.models.speed.fast_training import encoder_layers

# What runs above the layers beside the head. `layer_norm` of the encoder does so in some families only; see `_above`.
_ABOVE = ("adapter", "intermediate_ffn", "upsample", "out_norm")


def tri_stage_scale(update: int, *, updates: int, shares: list[float], final: float) -> float:
    """Return the learning rate's factor: linear from 0.01 to 1, constant, exponential to `final` (fairseq's tri_stage)."""
    warm_up, hold = shares[0] * updates, (shares[0] + shares[1]) * updates
    if update < warm_up:
        return 0.01 + 0.99 * update / warm_up
    if update < hold:
        return 1.0
    return math.exp(math.log(final) * min(1.0, (update - hold) / max(1.0, updates - hold)))


def makes_own_groups(optimizer: object, settings: Mapping) -> bool:
    """Tell whether an optimiser, as Trainer's `get_optimizer_cls_and_kwargs` gives it, chooses its parameters itself."""
    return not isinstance(optimizer, type) or bool({"params", "model", "optimizer_dict"} & settings.keys())


def parameter_groups(
    model: PreTrainedModel, *, learning_rate: float, weight_decay: float, layer_decay: float, decayed: Collection[str]
) -> list[dict]:
    """Return the trained parameters in groups of one learning rate each, that of the head first.

    A parameter d layers below the head has the rate `learning_rate * layer_decay**d`: the head and what else runs above the layers
    d = 0, the topmost of N layers d = 1, the lowest d = N, and what runs below the layers d = N + 1 (Bao et al. 2022, "BEiT",
    arXiv 2106.08254, `get_num_layer_for_vit` of its code; Clark et al. 2020, "ELECTRA", arXiv 2003.10555).

    Args:
        model: CTC model.
        learning_rate: Of the head, at the schedule's peak.
        weight_decay: Of the parameters named in `decayed`; the others have none.
        layer_decay: From above 0 to 1.
        decayed: Names of the parameters that weight decay is for.

    Returns:
        Groups for an optimiser: dicts of params, lr and weight_decay, in the order of their depth.

    Raises:
        ValueError: The family's layers are not known.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    depths = parameter_depths(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((depths[name], name not in decayed), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * layer_decay**depth, "weight_decay": 0.0 if without else weight_decay}
        for (depth, without), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def parameter_depths(model: PreTrainedModel) -> dict[str, int]:
    """Return, by name, how many layers below the head a parameter is: 0 above the layers, 1 to N in them, N + 1 below.

    Raises:
        ValueError: The family's layers are not known.
    """
    layers = _layers(model)
    depth_of = {id(parameter): len(layers) - place for place, layer in enumerate(layers) for parameter in layer.parameters()}
    above = {id(parameter) for module in _above(model) for parameter in module.parameters()}
    return {
        name: depth_of.get(id(parameter), 0 if id(parameter) in above else len(layers) + 1) for name, parameter in model.named_parameters()
    }


def freeze_layers(model: PreTrainedModel, count: int) -> list[str]:
    """Stop training of the lowest layers and of all that is below them, for good.

    Nothing below is trained either, since gradients would have to be carried through the frozen layers for it. Frozen batch norms
    keep the statistics that they have, and normalise by them.

    Args:
        model: CTC model.
        count: How many layers, from 0, which freezes nothing, to all of them.

    Returns:
        The names of the parameters whose training it stopped.

    Raises:
        ValueError: The model has fewer layers, or they are not known.
    """
    if not count:
        return []
    layers = _layers(model)
    if count > len(layers):
        raise ValueError(f"freeze_layers is {count}, but this {model.config.model_type} has {len(layers)} layers; give at most that")
    depths = parameter_depths(model)
    frozen = []
    for name, parameter in model.named_parameters():
        if depths[name] > len(layers) - count and parameter.requires_grad:
            parameter.requires_grad_(False)
            frozen.append(name)
    keep_frozen_norms(model)
    return frozen


def keep_frozen_norms(model: PreTrainedModel) -> None:
    """Let batch norms whose weights are not trained keep their statistics: the layer would change with every batch it sees."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine]
    norms = [norm for norm in norms if not norm.weight.requires_grad]
    if norms:
        # the trainer sets the whole model to training mode before each step
        model.register_forward_pre_hook(lambda module, inputs: [norm.eval() for norm in norms] and None)


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    if not (layers := encoder_layers(model)):
        raise ValueError(f"which layers a {model.config.model_type} has is not known; train it without layer_decay and freeze_layers")
    return layers


def _above(model: PreTrainedModel) -> list[nn.Module]:
    """What runs after the layers."""
    base = encoder_of(model)
    encoder = getattr(base, "encoder", base)
    above = [getattr(model, head) for head in HEADS if hasattr(model, head)]
    above += [getattr(part, name) for part in (base, encoder) for name in _ABOVE if getattr(part, name, None) is not None]
    if getattr(model.config, "do_stable_layer_norm", False) or model.config.model_type == "wav2vec2-conformer":
        above.append(encoder.layer_norm)
    return above
