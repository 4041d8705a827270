"""The numbers of a training run: Transformers' own, with CTC's added and a few defaults changed."""

import json
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from hfasr.training.novograd import check_betas

NEWEST = "newest"

# Fields of TrainingArguments that CTCTrainer has no use for: the value that leaves them alone, and what to use instead.
_REPLACED = {
    "per_device_train_batch_size": (8, "batches are made by seconds: give --max_batch_seconds"),
    "train_sampling_strategy": ("random", "batches are made of rows of like duration already"),
    "auto_find_batch_size": (False, "give --max_batch_seconds"),
    "dataloader_drop_last": (False, "every row is trained on once an epoch"),
    "label_smoothing_factor": (0.0, "CTC has no smoothed labels"),
    "remove_unused_columns": (False, "the collator reads columns that no model names"),
    "prediction_loss_only": (False, "evaluation counts errors too"),
    "eval_do_concat_batches": (True, "evaluation scores all rows together"),
    "hub_strategy": ("end", "the run folder is pushed once, with report and card"),
}


@dataclass
class CTCTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` for CTC; every field is a flag of a recipe.

    Raises:
        ValueError: A value is outside its range; the message names it.
    """

    max_batch_seconds: float = field(
        default=160.0, metadata={"help": "Audio per batch and device, padding included, in seconds. Replaces per_device_train_batch_size."}
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
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after this many evaluations without a better metric_for_best_model; 0 goes on to the end."}
    )
    model_config: str = field(
        default="{}",
        metadata={"help": """Fields of the model's configuration to change, as JSON: '{"mask_time_prob": 0.5, "layerdrop": 0.0}'."""},
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

    # Defaults that differ from TrainingArguments.
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
        super().__post_init__()
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        for name, (unused, instead) in _REPLACED.items():
            if getattr(self, name) != unused:
                raise ValueError(f"{name} is {getattr(self, name)!r}, which CTCTrainer would not follow; {instead}")
        if not self.max_batch_seconds > 0:
            raise ValueError(f"max_batch_seconds is {self.max_batch_seconds}; give a positive number of seconds")
        if self.stream_window < 1:
            raise ValueError(f"stream_window is {self.stream_window}; give a number of rows")
        for name in ("freeze_encoder_updates", "early_stopping_patience", "cpu_threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it counts from 0 up")
        if self.early_stopping_patience and not (self.load_best_model_at_end and self.metric_for_best_model):
            raise ValueError("early_stopping_patience needs --load_best_model_at_end and --metric_for_best_model to say what better means")
        if isinstance(self.lr_scheduler_kwargs, str):  # what argparse could not read as JSON
            raise ValueError(f"lr_scheduler_kwargs is {self.lr_scheduler_kwargs!r}; give a JSON object such as '{{\"min_lr\": 1e-5}}'")
        if self.novograd is not None:
            check_betas(self.novograd)
        self.config_overrides  # noqa: B018 (raises for what is no JSON object)
        if self.tri_stage is not None:
            if len(self.tri_stage) != 3 or min(self.tri_stage) < 0 or abs(sum(self.tri_stage) - 1) > 1e-6:
                raise ValueError(f"tri_stage is {self.tri_stage}; give three shares that add up to 1, such as 0.1 0.4 0.5")
            if not 0 < self.tri_stage_final_scale <= 1:
                raise ValueError(f"tri_stage_final_scale is {self.tri_stage_final_scale}; give a share above 0, at most 1")

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
