"""The numbers of a training run: Transformers' own, with CTC's added and a few defaults changed."""

import json
import math
import os
import re
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from hfasr.models.speed.fast_training import compile_mode
from hfasr.training.novograd import check_betas
from hfasr.training.rejoin import join_again

NEWEST = "newest"

# A worker decodes MP3 and computes features at 650 times real time and more, so that these feed 10,000 s of audio a second: twice what a
# large model takes on an H200. Each wants a core and up to 0.4 GB.
_MOST_WORKERS = 16
AUTO = "auto"

# Fields of TrainingArguments that CTCTrainer has no use for: the value that leaves them alone, and what to use instead.
_REPLACED = {
    "per_device_train_batch_size": (8, "batches are made by seconds: give --max_batch_seconds"),
    "train_sampling_strategy": ("random", "batches are made of rows of like duration already"),
    "auto_find_batch_size": (False, "give --max_batch_seconds"),
    "torch_compile": (False, "it compiles the whole model, where --compile compiles its layers: give that"),
    "dataloader_drop_last": (False, "every row is trained on once an epoch"),
    "remove_unused_columns": (False, "the collator reads columns that no model names"),
    "prediction_loss_only": (False, "evaluation counts errors too"),
    "eval_do_concat_batches": (True, "evaluation scores all rows together"),
    "dataloader_persistent_workers": (False, "workers go on from epoch to epoch as it is"),
    "dataloader_in_order": (True, "batches come in the order that a run is resumed in"),
    "dataloader_multiprocessing_context": (None, "workers start as PyTorch starts them"),
    "do_train": (False, "a recipe trains, evaluates and tests"),
    "do_predict": (False, "a recipe trains, evaluates and tests"),
    "hub_strategy": ("end", "the run folder is pushed once, with report and card"),
}


@dataclass
class CTCTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` for CTC; every field is a flag of a recipe.

    Raises:
        ValueError: A value is outside its range; the message names it.
    """

    max_batch_seconds: str = field(
        default=160.0,
        metadata={
            "help": "Audio per batch and device, padding included, in seconds; auto measures how much the GPU holds. Replaces "
            "per_device_train_batch_size."
        },
    )
    update_seconds: float = field(
        default=0.0,
        metadata={
            "help": "Audio per update over all processes, padding included, in seconds: makes gradient_accumulation_steps, and batches of "
            "at most max_batch_seconds, so that more or larger GPUs train alike. 0: what processes and accumulation come to."
        },
    )
    batch_shapes: int = field(
        default=0,
        metadata={
            "help": "Pad batches to this many lengths, chosen to pad least, and fill a few with silent rows, so that few tensor shapes "
            "occur: 12 pad 3 to 4 % more, 0 leaves each batch as long as its longest row. For batch norm (QuartzNet, "
            "Citrinet) silent rows count."
        },
    )
    stream_window: int = field(
        default=2048,
        metadata={
            "help": "Rows that a stream (not a table) shuffles and sorts by duration at a time, on each process. More pad less and "
            "take more memory: two windows of encoded audio."
        },
    )
    freeze_feature_encoder: bool = field(
        default=True, metadata={"help": "Never train the convolutions below the transformer (no effect on models without them)."}
    )
    freeze_encoder_updates: int = field(default=0, metadata={"help": "Train only the CTC head for this many updates first."})
    freeze_layers: int = field(default=0, metadata={"help": "Never train this many layers, the lowest, nor what is below them."})
    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "Learning rate of a layer over that of the layer above it: of N layers the topmost has learning_rate times this, the "
            "lowest times its Nth power, what is below times one power more; the head has learning_rate."
        },
    )
    lora_rank: int = field(
        default=0,
        metadata={
            "help": "Train low-rank updates (LoRA) of a transformer's linear maps and the head, nothing else. Saved merged, and as an "
            "adapter of peft in lora/. Takes about ten times the learning rate of training all weights."
        },
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "Scale of LoRA's updates times the rank; twice the rank if not given."}
    )
    adapter_language: str | None = field(
        default=None,
        metadata={
            "help": "Train only the language adapter of an MMS model and the head, and save them as adapter.<this>.safetensors beside the "
            "whole model; a code such as kir."
        },
    )
    tri_stage: list[float] | None = field(
        default=None,
        metadata={
            "help": "Shares of all updates for warm-up, hold and decay, such as 0.1 0.4 0.5: linear warm-up, constant, "
            "exponential decay to tri_stage_final_scale. Replaces lr_scheduler_type."
        },
    )
    tri_stage_final_scale: float = field(default=0.05, metadata={"help": "Last learning rate over the peak, for tri_stage."})
    novograd: list[float] | None = field(
        default=None,
        metadata={
            "help": "NovoGrad with these two betas, instead of --optim: 0.8 0.5 for QuartzNet, 0.8 0.25 for Citrinet. weight_decay is "
            "NovoGrad's too; the learning rate is that of NeMo's settings, about ten times Adam's."
        },
    )
    consistency: float = field(
        default=0.0,
        metadata={
            "help": "CR-CTC: each row goes through the model twice in a batch, and this weighs how far the two may differ; the paper takes "
            "0.2, and 2.5 times the time masks. Both count in max_batch_seconds, so that a step costs the same and holds half the rows."
        },
    )
    ema_decay: float = field(
        default=0.0,
        metadata={
            "help": "Evaluate, choose and save a moving average of the weights with this decay, such as 0.999; checkpoints hold both. It "
            "reaches back about 1 / (1 - decay) updates."
        },
    )
    average_checkpoints: int = field(
        default=0,
        metadata={"help": "End with the mean of the weights of this many checkpoints, the last ones; save_total_limit must keep as many."},
    )
    compile: str = field(
        default="auto",
        metadata={
            "help": "Compile convolutions and layers: dynamic (once, for batches of any shape), static (once for each shape; give few), "
            "off, or auto: dynamic on CUDA, off on a CPU and where FSDP or DeepSpeed split the model."
        },
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after this many evaluations without a better metric_for_best_model; 0 goes on to the end."}
    )
    model_config: str = field(
        default="{}",
        metadata={"help": """Fields of the model's configuration to change, as JSON: '{"mask_time_prob": 0.5, "layerdrop": 0.0}'."""},
    )
    profile: int = field(
        default=0,
        metadata={
            "help": "Record this many updates, after 10, with torch.profiler: <output_dir>/profile/trace_0.json, and the 20 most "
            "costly operators beside it."
        },
    )
    cpu_threads: int = field(
        default=0, metadata={"help": "Threads of each process when training on a CPU; 0 shares the cores. (accelerate launch sets 1.)"}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": NEWEST,
            "help": "Go on from a checkpoint folder; without a value, from the newest whole one in output_dir, "
            "or from the start when there is none.",
        },
    )

    # Defaults that differ from TrainingArguments, or another meaning.
    label_smoothing_factor: float = field(
        default=0.0,
        metadata={"help": "Share s of label smoothing: (1 - s) CTC + s times the divergence of the uniform distribution from each frame."},
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "help": "Processes that decode audio, for each process that trains. Found by itself if not given: with CUDA the cores less "
            f"one, shared by the processes of the machine, at most {_MOST_WORKERS} (give more to a small model whose log shows data_wait); "
            "on a CPU none, for training needs the cores."
        },
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads audio, which no model's forward names."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "A NaN loss must be seen in the log."})
    report_to: None | str | list[str] = field(
        default="tensorboard", metadata={"help": "Trackers, as in Transformers; none for no tracker."}
    )
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Keys of a batch that are labels."})
    greater_is_better: bool | None = field(default=False, metadata={"help": "All our metrics are error rates."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept: the best and the newest."})
    hub_strategy: HubStrategy | str = field(default="end", metadata={"help": "The run folder is pushed at the end."})
    ddp_find_unused_parameters: bool | None = field(
        default=True,
        metadata={"help": "LayerDrop and a frozen start leave parameters without gradients, also with gradient checkpointing."},
    )
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Rows per evaluation batch and device."})

    def __post_init__(self):
        if self.dataloader_num_workers is None:
            on_gpu = torch.cuda.is_available() and not self.use_cpu
            self.dataloader_num_workers = _workers() if on_gpu else 0
        if self.dataloader_num_workers < 0:
            raise ValueError(f"dataloader_num_workers is {self.dataloader_num_workers}; give a number of processes, or 0 for none")
        join_again(timedelta(seconds=self.ddp_timeout), use_cpu=self.use_cpu, backend=self.ddp_backend)
        super().__post_init__()
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        for name, (unused, instead) in _REPLACED.items():
            if getattr(self, name) != unused:
                raise ValueError(f"{name} is {getattr(self, name)!r}, which CTCTrainer would not follow; {instead}")
        self._check_budget()
        if self.batch_shapes < 0:
            raise ValueError(f"batch_shapes is {self.batch_shapes}; give a number of lengths, or 0 for none")
        compile_mode(self.compile, torch.device("cpu"))  # raises for a mode that there is not
        if self.stream_window < 1:
            raise ValueError(f"stream_window is {self.stream_window}; give a number of rows")
        for name in ("freeze_encoder_updates", "early_stopping_patience", "profile", "cpu_threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it counts from 0 up")
        if self.early_stopping_patience and not (self.load_best_model_at_end and self.metric_for_best_model):
            raise ValueError("early_stopping_patience needs --load_best_model_at_end and --metric_for_best_model to say what better means")
        if isinstance(self.lr_scheduler_kwargs, str):  # what argparse could not read as JSON
            raise ValueError(f"lr_scheduler_kwargs is {self.lr_scheduler_kwargs!r}; give a JSON object such as '{{\"min_lr\": 1e-5}}'")
        if self.novograd is not None:
            check_betas(self.novograd)
        self._check_regularisation()
        self._check_trained_weights()
        self.config_overrides  # noqa: B018 (raises for what is no JSON object)
        if self.tri_stage is not None:
            if len(self.tri_stage) != 3 or min(self.tri_stage) < 0 or abs(sum(self.tri_stage) - 1) > 1e-6:
                raise ValueError(f"tri_stage is {self.tri_stage}; give three shares that add up to 1, such as 0.1 0.4 0.5")
            if not 0 < self.tri_stage_final_scale <= 1:
                raise ValueError(f"tri_stage_final_scale is {self.tri_stage_final_scale}; give a share above 0, at most 1")

    def _check_budget(self) -> None:
        if self.max_batch_seconds != AUTO:
            try:
                self.max_batch_seconds = float(self.max_batch_seconds)
            except ValueError:
                raise ValueError(f"max_batch_seconds is {self.max_batch_seconds!r}; give a number of seconds, or {AUTO}") from None
            if not 0 < self.max_batch_seconds < math.inf:
                raise ValueError(f"max_batch_seconds is {self.max_batch_seconds:g}; give a positive number of seconds, or {AUTO}")
        if not 0 <= self.update_seconds < math.inf:
            raise ValueError(f"update_seconds is {self.update_seconds:g}; give a number of seconds, or 0 for none")
        if self.update_seconds and self.gradient_accumulation_steps != 1:
            raise ValueError(
                f"update_seconds is {self.update_seconds:g} and gradient_accumulation_steps {self.gradient_accumulation_steps}; each says "
                "how much an update holds, give one of them"
            )

    @property
    def views(self) -> int:
        """How often each row goes through the model in a training step."""
        return 2 if self.consistency else 1

    @property
    def batch_seconds(self) -> float:
        """Padded seconds of rows in a batch, of `max_batch_seconds` the part of each view; infinite while that is `auto`."""
        return math.inf if self.max_batch_seconds == AUTO else self.max_batch_seconds / self.views

    @property
    def half(self) -> torch.dtype | None:
        """The type that autocast computes in, None without mixed precision."""
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None

    def _check_trained_weights(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay}; give a factor above 0, at most 1, such as 0.9")
        for name in ("freeze_layers", "lora_rank"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it counts from 0 up")
        if self.lora_alpha is not None and not (self.lora_rank and 0 < self.lora_alpha < math.inf):
            raise ValueError(f"lora_alpha is {self.lora_alpha}; give a positive number, and lora_rank with it")
        if self.adapter_language is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.adapter_language):
            raise ValueError(
                f"adapter_language is {self.adapter_language!r}; give a code such as kir or uzb-script_cyrillic, which names a file"
            )
        few = [name for name in ("lora_rank", "adapter_language") if getattr(self, name)]
        if len(few) == 2:
            raise ValueError("lora_rank and adapter_language each choose the few weights that are trained; give one of them")
        if few and self.freeze_layers:
            raise ValueError(f"freeze_layers is {self.freeze_layers}, but {few[0]} freezes all layers already; give one of them")
        if self.lora_rank and self.average_checkpoints:
            raise ValueError("average_checkpoints takes whole weights, lora_rank trains updates of them; use ema_decay with LoRA")

    def _check_regularisation(self) -> None:
        if not 0 <= self.consistency < math.inf:
            raise ValueError(f"consistency is {self.consistency}; give a weight from 0 up, such as 0.2")
        for name in ("label_smoothing_factor", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share from 0 to below 1")
        if not (count := self.average_checkpoints):
            return
        if count < 2:
            raise ValueError(f"average_checkpoints is {count}; give 2 or more, or 0 for none")
        if self.ema_decay:
            raise ValueError("ema_decay and average_checkpoints each make the weights at the end; give one of them")
        if self.load_best_model_at_end:
            raise ValueError("average_checkpoints takes the last weights and load_best_model_at_end the best; give one of them")
        if self.save_strategy == "no":
            raise ValueError(f"average_checkpoints is {count}, but save_strategy no saves none")
        if self.save_only_model:
            raise ValueError("average_checkpoints takes whole checkpoints, save_only_model leaves the most of each out; give one of them")
        kept, best = self.save_total_limit or 0, 1 if self.metric_for_best_model else 0  # the best stays, however old
        if 0 < kept < count + best:
            raise ValueError(
                f"average_checkpoints is {count}, but save_total_limit keeps {kept}{' with the best among them' if best else ''}; "
                f"give save_total_limit {count + best}"
            )

    @property
    def config_overrides(self) -> dict:
        """`model_config` as a dict, for `load_model`."""
        try:
            fields = json.loads(self.model_config)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise ValueError(f"model_config is {self.model_config!r}; give a JSON object such as '{{\"mask_time_prob\": 0.5}}'")
        return fields


def _workers() -> int:
    """Return how many decoding workers this process's share of the cores feeds, beside itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))
