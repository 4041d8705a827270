"""CTCTrainer: rows to a checkpoint, on `transformers.Trainer`."""

import json
import logging
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import torch
from accelerate.data_loader import DataLoaderShard
from datasets import Dataset, IterableDataset, Value
from datasets.features import List
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer
from transformers.trainer_utils import EvalPrediction

from hfasr.corpora.rows import column, iter_values, plain, with_column
from hfasr.decoding.greedy import decode_frames, labels_to_text
from hfasr.evaluation.metrics import RATE_NAMES, error_rate
from hfasr.files import write_text
from hfasr.models.load import encoder_of, freeze_feature_encoder, output_lengths
from hfasr.text.vocabulary import Labels, encode_targets
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.batches.collator import PADDING, CTCCollator
from hfasr.training.batches.fitting import drop_unfit
from hfasr.training.batches.sampler import DurationBatchSampler
from hfasr.training.batches.stream import EncodedRows, FollowStream, StreamBatchSampler, check_stream
from hfasr.training.callbacks import FreezeEncoder, StopOnSignal, WatchLoss
from hfasr.training.checkpoints import resume_folder, stream_state, stream_state_path, trained_seconds
from hfasr.training.loss import ctc_loss_sum
from hfasr.training.novograd import NovoGrad
from hfasr.training.optimization import tri_stage_scale

logger = logging.getLogger(__name__)


class CTCTrainer(Trainer):
    """Train an AutoModelForCTC on rows.

    It differs from `transformers.Trainer` in the loss (summed CTC over the label count of all devices and accumulation
    steps, so that how utterances are split over batches, steps and processes changes nothing), in the training batches
    (equal padded seconds) and in the predictions (label ids, with -100 where a row has no frame).

    Args:
        model: Any AutoModelForCTC.
        args: The run's numbers.
        processor: Feature extractor and tokenizer that fit the model.
        train_dataset: Rows with `target`. Rows that cannot be trained on are dropped, and listed in `self.dropped`. A stream
            of rows (`stream_rows`, `add_stream_target`) is trained on as it comes: give the updates by `max_steps`; the rows
            left out are found on the way, and listed in quarantine.jsonl.
        eval_dataset: Rows with `target`, or a dict of such.
        unit: "phoneme" or "character": what the evaluation during training counts, as `eval_per` or `eval_cer`.
        kwargs: Passed on to `transformers.Trainer`.

    With `args.novograd` the optimiser is NovoGrad, over Trainer's two groups of parameters: weight decay leaves biases and the
    weights of norms alone, which NeMo's decays too.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: CTCTrainingArguments,
        processor,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        unit: str = "phoneme",
        **kwargs,
    ):
        if (metric := args.metric_for_best_model) not in (None, "loss", "eval_loss", RATE_NAMES[unit], f"eval_{RATE_NAMES[unit]}"):
            raise ValueError(f"metric_for_best_model is {metric!r}; evaluation of {unit}s gives {RATE_NAMES[unit]} and loss")
        self.unit, self.dropped = unit, []
        self._processor = processor
        self._follow = FollowStream() if isinstance(train_dataset, IterableDataset) else None
        self._stream_state: dict | None = None
        self._batches: tuple[Dataset | None, DurationBatchSampler | None] = (None, None)
        if self._follow is not None:
            check_stream(train_dataset, args)
        elif train_dataset is not None:
            train_dataset, self.dropped = drop_unfit(*self._labelled(train_dataset), model, processor)
            self._batches = (train_dataset, self._sampler(train_dataset, args))  # a budget that is too small is told now
        if any(isinstance(rows, IterableDataset) for rows in (eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset])):
            raise TypeError("eval_dataset is a stream; evaluation needs a table, such as Dataset.from_list(list(stream))")
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: self._by_duration(rows)[0] for name, rows in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = self._by_duration(eval_dataset)[0]
        if args.freeze_feature_encoder:
            freeze_feature_encoder(model)
        if args.novograd is not None:
            kwargs["optimizer_cls_and_kwargs"] = (NovoGrad, {"lr": args.learning_rate, "betas": tuple(args.novograd)})
        super().__init__(
            model=model,
            args=args,
            data_collator=CTCCollator(processor, Path(args.output_dir, "quarantine.jsonl")),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processor,
            compute_metrics=partial(frame_error_rate, tokenizer=processor.tokenizer, blank=model.config.pad_token_id, unit=unit),
            **kwargs,
        )
        if args.novograd is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError("novograd takes the norm of whole tensors, which FSDP and DeepSpeed split: choose one of the two")
        self.model_accepts_loss_kwargs = True  # compute_loss divides by num_items_in_batch
        self._blank_frames = self._frames = 0
        self._start, self._seconds_before = time.monotonic(), 0.0
        self.stop_on_signal = StopOnSignal()
        self.add_callback(self.stop_on_signal)
        self.add_callback(WatchLoss())
        if self._follow is not None:
            self.add_callback(self._follow)
        if args.freeze_encoder_updates:
            self.add_callback(FreezeEncoder(encoder_of(model), args.freeze_encoder_updates))
        if args.early_stopping_patience:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train to the end, or exit with 128 + the signal's number after a checkpoint when told to stop.

        Args:
            resume_from_checkpoint: A checkpoint folder, or "newest" (or True) for the newest whole one in the output
                folder; with none there, training starts from the beginning.
            kwargs: Passed on to `transformers.Trainer.train`.
        """
        folder = resume_folder(self.args.output_dir, resume_from_checkpoint)
        self._start, self._seconds_before = time.monotonic(), trained_seconds(folder) if folder else 0.0
        self._stream_state = stream_state(folder, self.args.process_index, self.args.world_size) if folder else None
        if folder and (self._stream_state is None) == (self._follow is not None):
            raise ValueError(f"{folder} is of a run on {'a table' if self._follow else 'a stream'}; resume with the same corpus")
        skip_nothing = self.args.ignore_data_skip
        self.args.ignore_data_skip = skip_nothing or self._follow is not None  # the sampler begins where training goes on
        try:
            result = super().train(resume_from_checkpoint=folder, **kwargs)
        finally:
            self.args.ignore_data_skip = skip_nothing
            self.stop_on_signal.restore()
            if self._follow is not None and self._follow.sampler is not None:
                self._follow.sampler.close()
        self.train_seconds = self._seconds_so_far()
        if self.stop_on_signal.stopping:
            logger.warning("stopped at update %d; the same command with --resume_from_checkpoint goes on", self.state.global_step)
            raise SystemExit(128 + self.stop_on_signal.stopping)
        return result

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the summed CTC loss over `num_items_in_batch` labels, times the processes over which DDP averages."""
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name not in ("labels", "input_lengths")})
        frames = output_lengths(self.model, inputs["input_lengths"])
        config = self.model.config
        loss = ctc_loss_sum(outputs.logits, labels, frames, config.pad_token_id, zero_infinity=config.ctc_zero_infinity)
        if model.training:
            self._count_blanks(outputs.logits.detach(), frames)
        if num_items_in_batch is None:
            loss = loss / (labels != PADDING).sum().clamp(min=1)
        else:
            loss = loss / torch.as_tensor(num_items_in_batch).clamp(min=1)  # 0 when no clip of the batch could be read
            if model.training and self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self):
        """Return batches of equal padded seconds for this process; every process has as many."""
        if self._follow is not None:
            quarantine = Path(self.args.output_dir, "quarantine.jsonl")
            sampler = StreamBatchSampler(self.train_dataset, self.model, self._processor, self.args, quarantine, self._stream_state)
            rows, self._follow.sampler = EncodedRows(), sampler
        else:
            rows = self.train_dataset.select_columns(["id", "audio", "labels"])
            known, sampler = self._batches
            sampler = sampler if known is self.train_dataset else self._sampler(self.train_dataset, self.args)
        workers = self.args.dataloader_num_workers
        # Accelerate's loader, but our sampler serves one process already: its own sharding would shard it again.
        return DataLoaderShard(
            rows,
            device=self.args.device,
            batch_sampler=sampler,
            # a loader without its own would draw from the generator of dropout, once more in a run that was resumed
            generator=torch.Generator() if self._follow is not None else None,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            persistent_workers=self.args.dataloader_persistent_workers and workers > 0,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            _non_blocking=True,
        )

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return the loss, the label id of every frame `(B, T)` with -100 past each row's end, and the labels `(B, L)`.

        A row with a character that has no symbol, which is a blank among its labels, has no loss, as in training.
        """
        inputs = self._prepare_inputs(inputs)
        unknown = (inputs["labels"] == self.model.config.pad_token_id).any(-1, keepdim=True)
        with torch.no_grad(), self.compute_loss_context_manager():
            labels = inputs["labels"].masked_fill(unknown, PADDING)
            loss, outputs = self.compute_loss(model, {**inputs, "labels": labels}, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        ids = outputs.logits.argmax(-1)
        frames = output_lengths(self.model, inputs["input_lengths"])
        past_end = torch.arange(ids.shape[1], device=ids.device) >= frames.to(ids.device)[:, None]
        return loss.detach(), ids.masked_fill(past_end, PADDING), inputs["labels"]

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Build the tri-stage schedule when `tri_stage` is given, else Transformers' own."""
        if self.args.tri_stage is not None and self.lr_scheduler is None:
            shape = partial(tri_stage_scale, updates=num_training_steps, shares=self.args.tri_stage, final=self.args.tri_stage_final_scale)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, shape)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save what each process draws next, and where it is in a stream.

        Trainer then writes trainer_state.json, which makes the checkpoint whole; no process may lack its part by then.
        """
        super()._save_rng_state(output_dir)
        if self._follow is not None:
            state = self._follow.sampler.state(self.state.global_step)
            write_text(stream_state_path(output_dir, self.args.process_index), json.dumps(state))
        self.accelerator.wait_for_everyone()

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Do nothing: `finish_run` pushes the whole run folder at the end, and makes the repository then."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the share of blank frames since the last log, and the seconds of training, to the training logs."""
        if not math.isfinite(logs.get("loss", 0.0)):
            self._tr_loss.zero_()  # Trainer clears its sum by subtracting it from itself, after which a NaN would stay
        if "loss" in logs and isinstance(self._frames, torch.Tensor):
            logs["blank_rate"] = round(float(self._blank_frames / self._frames.clamp(min=1)), 4)
            self._blank_frames = self._frames = 0
            logs["train_seconds"] = round(self._seconds_so_far(), 1)
        super().log(logs, start_time)

    def transcribe(self, rows: Dataset) -> list[str]:
        """Recognise rows; every process must call it, and each gets all results.

        Args:
            rows: Rows with `audio` and `target`.

        Returns:
            The recognised target of each row, in the order of the rows.
        """
        rows, order = self._by_duration(rows)
        frame_ids = self.predict(rows).predictions
        hypotheses = decode_frames(frame_ids, self._processor.tokenizer, self.model.config.pad_token_id)
        by_row = [""] * len(order)
        for place, hypothesis in zip(order, hypotheses, strict=True):
            by_row[place] = hypothesis
        return by_row

    @staticmethod
    def _sampler(rows: Dataset, args: CTCTrainingArguments) -> DurationBatchSampler:
        return DurationBatchSampler(
            column(rows, "duration").to_numpy(),
            args.max_batch_seconds,
            num_processes=args.world_size,
            process_index=args.process_index,
            seed=args.data_seed if args.data_seed is not None else args.seed,
        )

    def _seconds_so_far(self) -> float:
        return self._seconds_before + time.monotonic() - self._start

    def _count_blanks(self, logits: torch.Tensor, frames: torch.Tensor) -> None:
        within = torch.arange(logits.shape[1], device=logits.device) < frames.to(logits.device)[:, None]
        blanks = (logits.argmax(-1) == self.model.config.pad_token_id) & within
        self._blank_frames = self._blank_frames + blanks.sum()
        self._frames = self._frames + within.sum()

    def _labelled(self, rows: Dataset) -> tuple[Dataset, Labels]:
        """Add `labels`, the ids of `target`; return them as well."""
        labels = encode_targets(self._processor.tokenizer, iter_values(rows, "target"))
        ids = pyarrow.ListArray.from_arrays(labels.offsets.astype(np.int32), labels.ids)
        return with_column(plain(rows), "labels", ids, List(Value("int32"))), labels

    def _by_duration(self, rows: Dataset) -> tuple[Dataset, list[int]]:
        """Sort rows for evaluation, longest first, so that batches of a fixed number of rows pad little."""
        order = np.argsort(-column(rows, "duration").to_numpy(), kind="stable")
        return self._labelled(plain(rows).select(order))[0], order.tolist()


def frame_error_rate(prediction: EvalPrediction, *, tokenizer, blank: int, unit: str) -> dict[str, float]:
    """Score frame labels `(N, T)` against label ids `(N, L)`: `{"per": ...}` or `{"cer": ...}`, by unit.

    Characters that have no symbol, and so no id, are left out of the references; the score after training, of texts, counts them.
    """
    hypotheses = decode_frames(prediction.predictions, tokenizer, blank)
    references = [labels_to_text(row, tokenizer) for row in prediction.label_ids]
    return {RATE_NAMES[unit]: error_rate(references, hypotheses, unit)}
