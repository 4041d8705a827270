"""Arithmetic of a training step, counted, and the arithmetic a machine can do, measured.

A FLOP is one multiplication or addition of a matrix product or convolution, as in torch.utils.flop_counter; all else is small
beside them and not counted.
"""

import copy
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

# Side of the square matrices: the H200's best lies at 8192, a CPU reaches its own with little.
_SIDES = {"cuda": (4096, 8192), "cpu": (512,)}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def count_flops(model: nn.Module, inputs: Mapping[str, torch.Tensor], frozen: nn.Module | None = None) -> int:
    """Count the FLOPs of one forward and, where something is trained, one backward pass.

    What the backward costs follows from what is trained: parts below every trained weight cost their forward alone, frozen
    parts above one the gradient of their input too. LayerDrop and what gradient checkpointing repeats are not counted. Nothing
    is computed: a copy of the model runs on torch's meta device, which takes no memory and knows no length of input as long.

    Args:
        model: On any device, of any family; it is left as it is.
        inputs: What the forward takes; only shapes and types count.
        frozen: A part of the model to take as not trained.

    Raises:
        Exception: Whatever a forward raises that needs the values of its tensors.
    """
    twin = _on_meta(model, set() if frozen is None else {id(parameter) for parameter in frozen.parameters()})
    # torch 2.12 counts the weight gradient of a grouped convolution `groups` times over
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward_flops})
    # a layer that is compiled in place would be traced anew, for nothing
    with torch.compiler.set_stance("force_eager"), torch.enable_grad(), torch.device("meta"), counter:
        logits = twin(**{name: torch.empty_like(value, device="meta") for name, value in inputs.items()}).logits
        if logits.requires_grad:
            logits.sum().backward()
    return counter.get_total_flops()


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOPs a second of large matrix products: the most that a training step could reach.

    Args:
        device: Where to measure; a CPU is measured with the threads of this process.
        dtype: Of the matrices; float32 on CUDA as `torch.backends.cuda.matmul` allows.
    """
    best = 0.0
    for side in _SIDES.get(device.type, _SIDES["cpu"]):
        # not zeros, which take less power and run faster; not from torch's own generator, which training draws from
        draw = torch.Generator(device).manual_seed(0)
        left, right = (torch.randn(side, side, device=device, dtype=dtype, generator=draw) for _ in range(2))
        product, end = torch.mm(left, right), time.monotonic() + 0.03
        while time.monotonic() < end:
            seconds = _seconds_of(left, right, product, repeats=4)
            best = max(best, 4 * 2 * side**3 / seconds)
    return best


def _on_meta(model: nn.Module, frozen: set[int]) -> nn.Module:
    """Copy a model in evaluation mode, its weights without values, those of the given ids not trained."""
    # deepcopy takes what stands here under the id of a tensor for its copy
    copied = {
        id(parameter): nn.Parameter(
            torch.empty(parameter.shape, dtype=parameter.dtype, device="meta"), parameter.requires_grad and id(parameter) not in frozen
        )
        for parameter in model.parameters()
    }
    copied |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    for module in model.modules():  # whoever set a hook waits for the model itself
        copied |= {id(getattr(module, name)): OrderedDict() for name in _HOOKS}
    return copy.deepcopy(model, copied).eval()


def _conv_backward_flops(grad_shape, x_shape, w_shape, _bias, _stride, _padding, _dilation, transposed, _extra, _groups, mask, **_) -> int:
    """Count as many FLOPs for the gradient of the input, and for that of the weight, as for the forward."""
    return (mask[0] + mask[1]) * conv_flop_count(x_shape, w_shape, grad_shape, transposed=transposed)


def _seconds_of(left: torch.Tensor, right: torch.Tensor, product: torch.Tensor, repeats: int) -> float:
    """Return the seconds of one and the same matrix product, done several times."""
    if left.device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
    else:
        started = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right, out=product)
    if left.device.type == "cuda":
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    return time.perf_counter() - started
