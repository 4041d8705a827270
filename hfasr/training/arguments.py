"""The numbers of a training run: Transformers' own, with CTC's added and a few defaults changed."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

NEWEST = "newest"


@dataclass
class CTCTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` for CTC; every field is a flag of a recipe.

    Raises:
        ValueError: A value is outside its range; the message names it.
    """

    max_batch_seconds: float = field(
        default=160.0, metadata={"help": "Audio per batch and device, padding included, in seconds. Replaces per_device_train_batch_size."}
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
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after this many evaluations without a better metric_for_best_model; 0 goes on to the end."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": NEWEST,
            "help": "Go on from a checkpoint folder; without a value, from the newest whole one in output_dir, or from the start when there is none.",
        },
    )

    # Defaults that differ from TrainingArguments.
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available, metadata={"help": "Pinned host memory, for a GPU."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads audio, which no model's forward names."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "A NaN loss must be seen in the log."})
    report_to: str | list[str] | None = field(default="tensorboard", metadata={"help": "Trackers, as in Transformers; none for no tracker."})
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Keys of a batch that are labels."})
    greater_is_better: bool | None = field(default=False, metadata={"help": "All our metrics are error rates."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept: the best and the newest."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Rows per evaluation batch and device."})

    def __post_init__(self):
        super().__post_init__()
        if not self.max_batch_seconds > 0:
            raise ValueError(f"max_batch_seconds is {self.max_batch_seconds}; give a positive number of seconds")
        if self.freeze_encoder_updates < 0 or self.early_stopping_patience < 0:
            raise ValueError(
                f"freeze_encoder_updates ({self.freeze_encoder_updates}) and early_stopping_patience ({self.early_stopping_patience}) "
                "count from 0 up"
            )
        if self.early_stopping_patience and not (self.load_best_model_at_end and self.metric_for_best_model):
            raise ValueError("early_stopping_patience needs --load_best_model_at_end and --metric_for_best_model to say what better means")
        if self.tri_stage is not None:
            if len(self.tri_stage) != 3 or min(self.tri_stage) < 0 or abs(sum(self.tri_stage) - 1) > 1e-6:
                raise ValueError(f"tri_stage is {self.tri_stage}; give three shares that add up to 1, such as 0.1 0.4 0.5")
            if not 0 < self.tri_stage_final_scale <= 1:
                raise ValueError(f"tri_stage_final_scale is {self.tri_stage_final_scale}; give a share above 0, at most 1")
