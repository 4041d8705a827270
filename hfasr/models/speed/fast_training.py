"""FastTraining: a training step as fast as the device allows, and equal in value.

What makes the host wait for a GPU, or costs more than it must, is replaced from outside and put back afterwards: no model is
forked, and state-dict names, configuration and checkpoints are as ever. Compiling is torch.compile of the parts that take the
time, in place: the convolutions over the waveform and each layer.
"""

import contextlib
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter

import torch
from torch import nn

from .attention import needs_no_key_masks, relative_positions, rotary_positions, set_key_masks, with_fused_attention
from .masks import feature_vector_mask, mask_hidden_states
from .swap import swap
from .trial import transformers_models, try_out

logger = logging.getLogger(__name__)

COMPILE_MODES = ("auto", "dynamic", "static", "off")

# Where families keep their layers: wav2vec2 and most, SEW-D, QuartzNet and Citrinet.
_LAYERS = ("encoder.layers", "encoder.encoder.layer", "blocks")

# Modules that get a method of ours, by class: what it is for the log, the method, its stand-in.
_STAND_INS = {
    "SEWDTransformerEncoder": ("relative positions", "get_rel_pos", relative_positions),
    "Wav2Vec2BertRotaryPositionalEmbedding": ("rotary positions", "forward", rotary_positions),
    "Wav2Vec2ConformerRotaryPositionalEmbedding": ("rotary positions", "forward", rotary_positions),
}

# Graphs of one function: the feature encoder and every layer are one to torch (`Module._call_impl`), whose own limit is 8.
_GRAPHS_OF_A_FUNCTION = 256


def encoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the transformer layers, or the blocks of a convolutional model, bottom first; none if the family is not understood.

    Args:
        model: a CTC model or its base model, also inside a wrapper such as peft's.
    """
    for owner in transformers_models(model):
        for path in _LAYERS:
            with contextlib.suppress(AttributeError):
                if isinstance(layers := attrgetter(path)(owner), nn.ModuleList):
                    return list(layers)
    return []


def feature_encoder(model: nn.Module) -> nn.Module | None:
    """Return the convolutions over the raw waveform; None in families that begin with spectra."""
    for owner in transformers_models(model):
        encoder = getattr(owner, "feature_extractor", None)
        if isinstance(getattr(encoder, "conv_layers", None), nn.ModuleList):
            return encoder
    return None


def compiled_parts(model: nn.Module) -> list[nn.Module]:
    """Return the modules that are worth compiling: the layers and the convolutions over the waveform; none without known layers."""
    waveform, layers = feature_encoder(model), encoder_layers(model)
    return layers if waveform is None or not layers else [waveform, *layers]


def raise_graph_limits() -> list[Callable[[], None]]:
    """Let torch.compile make as many graphs as the parts of a model need, and return what takes that back."""
    import torch._dynamo

    config = torch._dynamo.config
    limits = {"recompile_limit": _GRAPHS_OF_A_FUNCTION, "accumulated_recompile_limit": 4 * _GRAPHS_OF_A_FUNCTION}
    undo = [partial(setattr, config, name, getattr(config, name)) for name in limits]
    for name, limit in limits.items():
        setattr(config, name, max(getattr(config, name), limit))
    return undo


def fast_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, object]]:
    """Yield what may stand in for slow parts of a model: what part, for the log; a module, the name of an attribute and its value."""
    for owner in transformers_models(model):
        if hasattr(owner, "_mask_hidden_states"):
            yield "time masks", owner, "_mask_hidden_states", types.MethodType(mask_hidden_states, owner)
            # SEW and SEW-D make theirs on the device
            if owner.config.model_type not in ("sew", "sew-d"):
                yield "time masks", owner, "_get_feature_vector_attention_mask", types.MethodType(feature_vector_mask, owner)
    for module in model.modules():
        kind = type(module).__name__
        if kind == "WavLMAttention":
            yield "attention", module, "__class__", with_fused_attention(type(module))
        elif kind in _STAND_INS:
            part, name, function = _STAND_INS[kind]
            yield part, module, name, types.MethodType(function, module)


def graphs_compiled() -> int:
    """Return how many graphs torch.compile has compiled in this process so far."""
    # torch._dynamo takes a second to import, and who did not compile did not import it
    if "torch._dynamo" not in sys.modules:
        return 0
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def compile_mode(wanted: str, device: torch.device) -> str:
    """Return "dynamic", "static" or "off": what "auto" means on a device, or what was wanted.

    A CPU gains too little from compiling to earn back the minute that it takes.

    Raises:
        ValueError: `wanted` is no mode.
    """
    if wanted not in COMPILE_MODES:
        raise ValueError(f"compile is {wanted!r}, expected one of {', '.join(COMPILE_MODES)}")
    if wanted != "auto":
        return wanted
    return "dynamic" if torch.device(device).type == "cuda" else "off"


def prepare_device(device: torch.device, tf32: bool = True) -> None:
    """Set for the process what training on a CUDA device gains from; nothing on others.

    Float32 products that autocast leaves run on tensor cores, and memory is held in segments that grow: batches of many shapes
    would leave gaps between fixed ones, which no batch fits in. A `PYTORCH_ALLOC_CONF` in the environment goes before.

    Args:
        device: where training runs.
        tf32: False leaves the precision of float32 products as it is.
    """
    if torch.device(device).type != "cuda":
        return
    if tf32:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        settings = getattr(torch._C, "_accelerator_setAllocatorSettings", None) or torch.cuda.memory._set_allocator_settings
        settings("expandable_segments:True")


class FastTraining:
    """Replace what is slow in training, and compile the parts of a model in place, until `restore` or the end of `with`.

    Evaluation meanwhile runs the replaced parts, but nothing compiled: its batches are of many shapes and few. A trial forward and backward
    pass comes before anything else; if it fails, the model runs uncompiled, and one warning says why.

    Args:
        model: of any AutoModelForCTC family, on the device on which it will be trained, before DDP wraps it.
        compile: "off", "dynamic" (compiled once for all shapes) or "static" (once for each shape of a batch).
        autocast: the type that training computes in, if not that of the weights; a graph is compiled for one.
        trial_seconds: audio in the trial batch. The compiler lays reductions out for sizes as it first sees them, so on a GPU a batch
            like those of training makes faster code than a tiny one; one that does not fit in memory is halved. 0 for no trial.
        backend: of torch.compile; "aot_eager" traces and compiles nothing, for tests.

    Attributes:
        replaced: what was replaced, for the log.
        kept: what of the model could not be replaced or compiled, for the log.
        compiled: modules compiled in place.

    Raises:
        ValueError: `compile` is none of the three.
    """

    def __init__(
        self,
        model: nn.Module,
        compile: str = "off",
        *,
        autocast: torch.dtype | None = None,
        trial_seconds: float = 1.0,
        backend: str = "inductor",
    ):
        if compile not in (allowed := [mode for mode in COMPILE_MODES if mode != "auto"]):
            raise ValueError(f"compile is {compile!r}, expected one of {', '.join(allowed)}")
        self.replaced: list[str] = []
        self.kept: list[str] = []
        self.compiled = 0
        self._undo: list[Callable[[], object]] = []
        try:
            self._replace(model)
            if compile != "off":
                self._compile(model, compile, autocast, trial_seconds, backend)
        except BaseException:
            self.restore()
            raise
        logger.info(
            "replaced for speed: %s; compiled: %s%s",
            ", ".join(self.replaced) or "nothing",
            f"{self.compiled} modules ({compile})" if self.compiled else "nothing",
            f"; as it was: {', '.join(self.kept)}" if self.kept else "",
        )

    def __enter__(self) -> "FastTraining":
        return self

    def __exit__(self, *exception) -> None:
        self.restore()

    def restore(self) -> None:
        """Make the model what it was, apart from its weights. Does nothing the second time."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, model: nn.Module) -> None:
        for part, owner, name, value in fast_parts(model):
            self._undo.append(swap(owner, name, value))
            self.replaced += [part] if part not in self.replaced else []
        masked = False
        for owner in transformers_models(model):
            if (before := set_key_masks(owner)) is not None:
                self._undo.append(partial(owner.set_attn_implementation, before))
                masked = True
        self.replaced += ["attention masks"] if masked else []
        attention = set(self.replaced) - {"time masks"}
        if not attention and _attends(model) and not needs_no_key_masks(model):
            self.kept.append("attention")

    def _compile(self, model: nn.Module, mode: str, autocast: torch.dtype | None, trial_seconds: float, backend: str) -> None:
        if not (parts := compiled_parts(model)):
            logger.warning("%s is not compiled: its layers are not where those of known families are", type(model).__name__)
            self.kept.append("layers")
            return
        self._undo += raise_graph_limits()
        undo_compiled = len(self._undo)
        for module in parts:
            self._undo.append(partial(setattr, module, "_compiled_call_impl", module._compiled_call_impl))
            if hasattr(module, "_requires_grad"):
                self._undo.append(partial(setattr, module, "_requires_grad", module._requires_grad))
            _compile_in_place(module, mode == "dynamic", backend)
            self.compiled += 1
        if not trial_seconds:
            return
        try:
            try_out(model, autocast, trial_seconds)
        # whatever it is, training must not end for it: a compiler raises what it likes
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            logger.warning("%s is trained without compiling, which fails here: %s", type(model).__name__, reason)
            self.compiled = 0
            self.kept.append("layers")
            while len(self._undo) > undo_compiled:
                self._undo.pop()()


def _compile_in_place(module: nn.Module, dynamic: bool, backend: str) -> None:
    module.compile(dynamic=dynamic, backend=backend)
    compiled = module._compiled_call_impl

    def call(*args, **kwargs):
        if not module.training:
            return module._call_impl(*args, **kwargs)
        if hasattr(module, "_requires_grad"):
            # a feature encoder asks for the gradient of the waveform, which only reentrant checkpointing needs and no compiler follows
            checkpointed = any(layer.gradient_checkpointing for layer in module.conv_layers)
            module._requires_grad = checkpointed and any(parameter.requires_grad for parameter in module.parameters())
        if "index" in kwargs:
            kwargs["index"] = 0  # WavLM numbers its layers and does nothing with it; a compiler would make a graph for each number
        return compiled(*args, **kwargs)

    module._compiled_call_impl = call


def _attends(model: nn.Module) -> bool:
    return any("Attention" in type(module).__name__ for module in model.modules())
