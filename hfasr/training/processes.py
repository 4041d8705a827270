"""Several processes: waiting for each other on the host, and what FSDP2 and DeepSpeed need of a CTC model, or cannot do."""

from datetime import timedelta
from functools import lru_cache

import torch
from torch import distributed, nn
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import PreTrainedModel, Trainer, TrainerCallback

from hfasr.models.load import encoder_of
from hfasr.models.speed.fast_training import encoder_layers
from hfasr.training.arguments import CTCTrainingArguments

# A corpus of 100,000 hours takes one machine most of a day to decode.
_PATIENCE = timedelta(days=2)


def wait_for_others() -> None:
    """Wait on the host until every process has come here; return at once where there is one.

    Between devices a process that waits longer than `ddp_timeout` ends the run, and one that makes a table or decodes a corpus
    for all keeps the others waiting for hours. A process that has died is noticed at once all the same, by its connection.

    Raises:
        RuntimeError: A process has ended; the message names its rank.
    """
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.monitored_barrier(_host_group(distributed.group.WORLD), timeout=_PATIENCE)


@lru_cache(maxsize=1)
def _host_group(world: distributed.ProcessGroup) -> distributed.ProcessGroup:
    return distributed.new_group(backend="gloo", timeout=_PATIENCE)


def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's saved buffers, the statistics of batch norms, as DDP does before each training step.

    After the last step each has its own: evaluation would judge rows by other weights than those that are saved.
    """
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        saved = model.state_dict(keep_vars=True).keys()
        for name, buffer in model.named_buffers():
            if name in saved:
                distributed.broadcast(buffer, 0)


def settle_sharding(trainer: Trainer) -> None:
    """Make a trainer fit for FSDP2 or DeepSpeed where Accelerate was told to use one; do nothing where it was not.

    Args:
        trainer: Set up, its model not yet wrapped.

    Raises:
        ValueError: The run asks for something that a sharded model cannot do.
    """
    state = trainer.accelerator.state
    fsdp, deepspeed = getattr(state, "fsdp_plugin", None), getattr(state, "deepspeed_plugin", None)
    if fsdp is None and deepspeed is None:
        return
    check_sharding(trainer.args, fsdp, deepspeed)
    if fsdp is not None:
        prepare_fsdp(fsdp, trainer.model)
        trainer.add_callback(FillState())
    if getattr(trainer.model.config, "layerdrop", 0):
        trainer.add_callback(SameLayers(encoder_of(trainer.model), trainer.args.seed))


def check_sharding(args: CTCTrainingArguments, fsdp: object | None, deepspeed: object | None) -> None:
    """Refuse what cannot be done with a sharded model, before hours of training end without a model.

    Args:
        args: The run's numbers.
        fsdp: Accelerate's `FullyShardedDataParallelPlugin`, if any.
        deepspeed: Its `DeepSpeedPlugin`, if any.

    Raises:
        ValueError: Says what, and what to do instead.
    """
    if args.novograd is not None:
        raise ValueError("novograd takes the norm of whole tensors, which FSDP and DeepSpeed split: choose one of the two")
    if args.lora_rank:
        raise ValueError("LoRA is saved merged from whole tensors, which FSDP and DeepSpeed split: choose one of the two")
    if args.ema_decay or args.average_checkpoints:
        raise ValueError("ema_decay and average_checkpoints average whole weights, which FSDP and DeepSpeed split: choose one of the two")
    if fsdp is not None:
        if fsdp.fsdp_version != 2:
            raise ValueError(
                f"fsdp_version is {fsdp.fsdp_version}, which wants all parameters of a layer frozen or none; write fsdp_version: 2"
            )
        if fsdp.cpu_ram_efficient_loading:
            raise ValueError(
                "fsdp_cpu_ram_efficient_loading leaves all processes but the first without weights, and load_model fits a head to them; "
                "write fsdp_cpu_ram_efficient_loading: false"
            )
        if "FULL_STATE_DICT" not in str(fsdp.state_dict_type):
            raise ValueError(
                f"fsdp_state_dict_type is {getattr(fsdp.state_dict_type, 'name', fsdp.state_dict_type)}, of which no model for "
                "Transformers is saved; write fsdp_state_dict_type: FULL_STATE_DICT"
            )
    if deepspeed is not None:
        if deepspeed.zero_stage == 3:
            raise ValueError(
                "ZeRO stage 3 cuts the weights that load_model fits a head to; write zero_stage: 2, or take recipes/accelerate/fsdp.yaml"
            )
        if args.layer_decay != 1 and "optimizer" in deepspeed.deepspeed_config:
            raise ValueError("layer_decay makes groups that an optimizer of DeepSpeed's configuration does not get; take it out there")
        if args.freeze_encoder_updates and args.weight_decay:
            raise ValueError(
                f"DeepSpeed steps parameters without gradients as well, so weight_decay {args.weight_decay} would shrink the encoder "
                f"during freeze_encoder_updates {args.freeze_encoder_updates}; set one of them to 0"
            )


def prepare_fsdp(plugin: object, model: PreTrainedModel) -> None:
    """Say which layers to shard one by one, where the configuration leaves it open, and that a CTC model has no input embeddings.

    Args:
        plugin: Accelerate's `FullyShardedDataParallelPlugin`.
        model: Not yet sharded.

    Raises:
        ValueError: Its layers are not known, and would be gathered all at once.
    """
    if plugin.auto_wrap_policy is transformer_auto_wrap_policy and not plugin.transformer_cls_names_to_wrap:
        # few families name their layers themselves, by _no_split_modules
        plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in encoder_layers(model)})
        if not plugin.transformer_cls_names_to_wrap:
            raise ValueError(
                f"which layers of a {model.config.model_type} to shard is not known; name their classes by "
                "fsdp_transformer_layer_cls_to_wrap"
            )
    try:
        model.get_input_embeddings()
    except NotImplementedError:  # which Accelerate 1.15 asks for to shard them apart, and does not expect
        model.get_input_embeddings = _no_embeddings


def _no_embeddings() -> None:
    return None


class SameLayers(TrainerCallback):
    """Have LayerDrop leave out the same layers on every process, drawn by seed, update and batch.

    A layer that some processes run and others skip is gathered by some of them only (FSDP), or shifts the buckets in which
    gradients are added up (ZeRO): the run hangs. DDP needs no such thing, it looks for unused parameters.

    Args:
        encoder: The module that draws, from torch's generator on the host. (Where training is on the host too, dropout draws from
            the same one, and batches of different shapes part the processes after all.)
        seed: Of the run.
    """

    def __init__(self, encoder: nn.Module, seed: int):
        self.seed, self.update, self.batch = seed, 0, 0
        self._before: torch.Tensor | None = None
        encoder.register_forward_pre_hook(self._enter)
        encoder.register_forward_hook(self._leave, always_call=True)

    def on_step_begin(self, args, state, control, **kwargs):
        self.update, self.batch = state.global_step, 0

    def _enter(self, module, inputs):
        for part in (module, *module.children()):
            if getattr(part, "_is_fsdp_managed_module", False):
                part._is_fsdp_managed_module = False  # or Transformers drops no layer, to be on the safe side
        if module.training:
            self._before = torch.default_generator.get_state()
            torch.default_generator.manual_seed(hash((self.seed, self.update, self.batch)) & (2**63 - 1))
            self.batch += 1

    def _leave(self, module, inputs, output):
        if self._before is not None:
            torch.default_generator.set_state(self._before)
            self._before = None


class FillState(TrainerCallback):
    """Give an optimiser its state of every parameter before training, as FSDP needs it.

    A checkpoint that lacks the state of some, because they had no gradient up to there (a frozen start, LayerDrop, masks that
    were never drawn), cannot be loaded: torch refuses it.
    """

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        fill_state(getattr(optimizer, "optimizer", optimizer))


def fill_state(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimiser make its state of the parameters that have none, as if it had not stepped; no parameter changes."""
    bare = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter not in optimizer.state]
    bare = [parameter for parameter in bare if parameter.requires_grad]
    if not bare:
        return
    others = {parameter: parameter.grad for group in optimizer.param_groups for parameter in group["params"]}
    rates = [group["lr"] for group in optimizer.param_groups]
    for parameter in others:
        parameter.grad = None
    for parameter in bare:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for parameter, gradient in others.items():
        parameter.grad = gradient
    for parameter in bare:
        if (steps := optimizer.state[parameter].get("step")) is not None:
            optimizer.state[parameter]["step"] = steps * 0
