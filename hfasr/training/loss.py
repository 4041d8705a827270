"""The CTC loss, with consistency between two views of each utterance and label smoothing where they are asked for."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from hfasr.models.blocks import SqueezeExcite
from hfasr.models.speed.padding import to_device
from hfasr.training.batches.collator import PADDING


def ctc_loss_sum(
    logits: torch.Tensor,
    labels: torch.Tensor,
    frames: torch.Tensor,
    blank: int,
    *,
    zero_infinity: bool,
    label_lengths: torch.Tensor | None = None,
    consistency: float = 0.0,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the loss summed over the utterances, in float32 or better.

    An utterance's loss is (1 - s) CTC + s U, where U sums KL(uniform || p) over its frames (Kim et al. 2018, arXiv 1711.02212;
    the direction is that of smoothed labels in cross entropy). With consistency c the rows are two views of each utterance,
    its loss is the mean of theirs, and c R joins it: R sums 1/2 KL(p2 || p1) + 1/2 KL(p1 || p2) over the frames, the first
    distribution of each held constant (CR-CTC, Yao et al. 2024, arXiv 2410.05101).

    CTC, U and R are sums over an utterance, in the paper's code (icefall) too. The caller divides all of it by one number, the
    labels of the whole update, so that neither their proportion in an utterance nor the gradient of an update depends on how
    utterances are split over batches.

    Args:
        logits: `(B, T, V)`; with consistency `(2 B, T, V)`, the rows as `two_views` orders them, and so for the rest.
        labels: `(B, L)` padded with -100; a row without labels counts nothing.
        frames: Valid frames `(B,)`. On the host they cost no wait for the device.
        blank: Id of the blank.
        zero_infinity: Count 0 as CTC of a row whose labels do not fit its frames.
        label_lengths: Labels of each row `(B,)`, on the host; counted from `labels` when None.
        consistency: c, from 0 up.
        smoothing: s, from 0 to below 1.
    """
    log_probs = functional.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
    present = labels != PADDING
    counted = present.any(-1)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's CTC is not deterministic and wants blank 0
        losses = functional.ctc_loss(
            log_probs.transpose(0, 1),
            labels.where(present, 0),
            frames,
            present.sum(-1) if label_lengths is None else label_lengths,
            blank=blank,
            reduction="none",
            zero_infinity=zero_infinity,
        )
    loss = losses.where(counted, 0.0).sum()
    if not (consistency or smoothing):
        return loss
    within = torch.arange(logits.shape[1], device=logits.device) < to_device(frames, logits.device)[:, None]
    within = within & counted[:, None]
    if smoothing:
        loss = (1 - smoothing) * loss + smoothing * from_uniform(log_probs).where(within, 0.0).sum()
    if consistency:
        loss = 0.5 * (loss + consistency * between_views(log_probs).where(within, 0.0).sum())
    return loss


def from_uniform(log_probs: torch.Tensor) -> torch.Tensor:
    """Return KL(uniform || p) of each frame `(B, T)`, p given by `log_probs` `(B, T, V)`."""
    return -log_probs.mean(-1) - np.log(log_probs.shape[-1])


def between_views(log_probs: torch.Tensor) -> torch.Tensor:
    """Return KL(q || p) of each frame `(2 B, T)`, where q is the other view's p and gets no gradient.

    Args:
        log_probs: `(2 B, T, V)`, log p, the views as `two_views` orders them.
    """
    others = log_probs.detach().roll(len(log_probs) // 2, 0)
    return functional.kl_div(log_probs, others, reduction="none", log_target=True).sum(-1)


def two_views(batch: dict[str, torch.Tensor | np.ndarray]) -> dict[str, torch.Tensor | np.ndarray]:
    """Return a batch with every row twice, all rows and then all again; masks and dropout draw for each by itself."""
    return {
        name: torch.cat([rows, rows]) if isinstance(rows, torch.Tensor) else np.concatenate([rows, rows]) for name, rows in batch.items()
    }


def check_views(model: PreTrainedModel, consistency: float) -> None:
    """Raise ValueError when two views of a row would be equal, because a training step draws nothing at random for each row."""
    if not draws_by_row(model):
        raise ValueError(
            f"consistency is {consistency:g}, but this model has neither masks nor dropout: two views of an utterance would be equal. "
            "Set some by model_config, such as mask_time_prob or time_masks, or leave consistency at 0"
        )


def draws_by_row(model: PreTrainedModel) -> bool:
    """Tell whether a training step masks or drops something of each row at random; LayerDrop is the same for a whole batch."""
    config = model.config
    masks = ["freq_masks", "time_masks", "rect_masks"]
    if getattr(config, "apply_spec_augment", True):
        masks += ["mask_time_prob", "mask_feature_prob"]
    return any(getattr(config, name, 0) > 0 for name in masks) or any(_random_share(module) > 0 for module in model.modules())


def _random_share(module: nn.Module) -> float:
    if isinstance(module, SqueezeExcite):
        return max(0, module.context)
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    # layers that call the function hold its number under one of these names
    names = ("dropout", "attention_dropout", "activation_dropout", "dropout_positions", "drop_prob")
    return max((share for name in names if isinstance(share := getattr(module, name, 0.0), int | float)), default=0.0)
