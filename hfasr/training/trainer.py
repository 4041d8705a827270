"""CTCTrainer: rows to a checkpoint, on `transformers.Trainer`."""

import copy
import json
import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate.data_loader import DataLoaderShard
from accelerate.utils import DistributedType, send_to_device
from datasets import Dataset, IterableDataset
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, set_seed

from hfasr.corpora.rows import column
from hfasr.decoding.greedy import decode_frames
from hfasr.evaluation.metrics import RATE_NAMES
from hfasr.files import write_text
from hfasr.models.load import encoder_of, freeze_feature_encoder, output_lengths
from hfasr.models.speed.fast_training import FastTraining, compile_mode, graphs_compiled, prepare_device
from hfasr.training.adapters import (
    LORA_FOLDER,
    add_lora,
    load_lora,
    merged_state_dict,
    train_language_adapter,
    write_language_adapter,
    write_lora,
)
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.averaging import MovingAverage, load_mean
from hfasr.training.batches.budget import CudaMemory, held_bytes, measure_budget
from hfasr.training.batches.collator import PADDING, CTCCollator
from hfasr.training.batches.fitting import drop_unfit, labelled
from hfasr.training.batches.inputs import INPUT_LENGTHS, LABEL_LENGTHS, LABELS, model_inputs, takes_mask
from hfasr.training.batches.loader import AheadLoader, training_loader, with_steady_workers
from hfasr.training.batches.record import (
    batch_record,
    check_record,
    draws_anew,
    given_numbers,
    go_on,
    process_seed,
    run_facts,
    write_record,
)
from hfasr.training.batches.sampler import DurationBatchSampler, check_budget
from hfasr.training.batches.settling import budget_facts, device_name, longest_row, lower_budget, settle_batches
from hfasr.training.batches.stream import EncodedRows, FollowStream, StreamBatchSampler, check_stream
from hfasr.training.callbacks import FreezeEncoder, StopOnSignal, WatchLoss
from hfasr.training.checkpoints import resume_folder, stream_state, stream_state_path, trained_seconds
from hfasr.training.loss import check_views, ctc_loss_sum, two_views
from hfasr.training.meters import SpeedMeter, summary_line
from hfasr.training.novograd import NovoGrad
from hfasr.training.optimization import freeze_layers, makes_own_groups, parameter_groups, tri_stage_scale
from hfasr.training.processes import settle_sharding, share_buffers, wait_for_others
from hfasr.training.profiling import ProfileUpdates
from hfasr.training.recovery import (
    Pieces,
    RowTooLong,
    end_process,
    leave_for_restart,
    most_of_all,
    note_launch,
    read_limit,
    resume_after_restart,
    unsynchronised,
    write_limit,
)
from hfasr.training.scoring import by_duration, frame_error_rate, frame_labels, in_order

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
        if args.consistency:
            check_views(model, args.consistency)
        wait_for_others()  # one may have made the corpus for all
        args = copy.copy(args)  # what is settled below is of this training alone
        self.unit, self.dropped = unit, []
        self._processor = processor
        self._follow = FollowStream() if isinstance(train_dataset, IterableDataset) else None
        self._stream_state: dict | None = None
        self._loader: DataLoaderShard | None = None
        self._restarted = resume_after_restart(args)
        given, folder = given_numbers(args), resume_folder(args.output_dir, args.resume_from_checkpoint)
        self._batches: tuple[Dataset | None, DurationBatchSampler | None] = (None, None)
        if self._follow is not None:
            check_stream(train_dataset, args)
        elif train_dataset is not None:
            train_dataset, self.dropped = drop_unfit(*labelled(train_dataset, processor.tokenizer), model, processor)
        if any(isinstance(rows, IterableDataset) for rows in (eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset])):
            raise TypeError("eval_dataset is a stream; evaluation needs a table, such as Dataset.from_list(list(stream))")
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: by_duration(rows, processor.tokenizer)[0] for name, rows in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = by_duration(eval_dataset, processor.tokenizer)[0]
        self._masked = takes_mask(model, processor.feature_extractor)
        self.meter = SpeedMeter(processor.feature_extractor, args.views)
        if args.freeze_feature_encoder:
            freeze_feature_encoder(model)
        freeze_layers(model, args.freeze_layers)
        if args.lora_rank:
            add_lora(model, args.lora_rank, args.lora_alpha)
        if args.adapter_language is not None:
            train_language_adapter(model)
        if args.novograd is not None:
            kwargs["optimizer_cls_and_kwargs"] = (NovoGrad, {"lr": args.learning_rate, "betas": tuple(args.novograd)})
        prepare_device(args.device, tf32=args.tf32 is not False)
        self.model, self.args = model, args  # what the loss needs, by which a budget is measured
        table = None if self._follow is not None else train_dataset
        self._facts = {} if train_dataset is None else budget_facts(model, args, longest_row(table, args)[0])
        if folder:
            self.batches = go_on(folder, args)
        elif train_dataset is None:
            self.batches = batch_record(args, given)
        else:
            count = self._settle_batches(args, table, kwargs.get("optimizer_cls_and_kwargs"))
            self.batches = replace(batch_record(args, given), batches_per_update=count)
        self.batches = replace(self.batches, facts=run_facts(model, table, args))
        if table is not None:
            self._batches = (table, self._sampler(table, args))  # a budget that is too small is told now
            if len(table) < args.world_size:
                logger.warning("%d training rows for %d processes: the others take empty batches", len(table), args.world_size)
            logger.info("an epoch is %s", self._batches[1].summary())
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
        settle_sharding(self)
        self.model_accepts_loss_kwargs = True  # compute_loss divides by num_items_in_batch
        self._start, self._seconds_before = time.monotonic(), 0.0
        self.pieces = Pieces(
            self.meter.seconds_per_input,
            self._memory_ran_out,
            model.zero_grad,
            read_limit(args.output_dir, device_name(args.device)) if args.resume_from_checkpoint else math.inf,
            partial(most_of_all, args.device) if self._is_split and args.world_size > 1 else None,
        )
        self.stop_on_signal = StopOnSignal()
        self.add_callback(self.stop_on_signal)
        self.add_callback(WatchLoss())
        self._average = MovingAverage(args.ema_decay) if args.ema_decay else None
        if self._average is not None:
            self.add_callback(self._average)
        if self._follow is not None:
            self.add_callback(self._follow)
        if args.freeze_encoder_updates:
            self.add_callback(FreezeEncoder(encoder_of(model), args.freeze_encoder_updates))
        if args.early_stopping_patience:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        self.add_callback(self.meter)
        self._profiler = ProfileUpdates(Path(args.output_dir, "profile"), args.profile, args.device, args.process_index)
        if args.profile and args.process_index == 0:
            self.add_callback(self._profiler)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train to the end, or exit with 128 + the signal's number after a checkpoint when told to stop.

        Args:
            resume_from_checkpoint: A checkpoint folder, or "newest" (or True) for the newest whole one in the output
                folder; with none there, training starts from the beginning.
            kwargs: Passed on to `transformers.Trainer.train`.
        """
        if self._restarted:
            resume_from_checkpoint = self.args.resume_from_checkpoint
        folder = resume_folder(self.args.output_dir, resume_from_checkpoint)
        self._start, self._seconds_before = time.monotonic(), trained_seconds(folder) if folder else 0.0
        self._stream_state = stream_state(folder, self.args.process_index, self.args.world_size) if folder else None
        if folder and (self._stream_state is None) == (self._follow is not None):
            raise ValueError(f"{folder} is of a run on {'a table' if self._follow else 'a stream'}; resume with the same corpus")
        if folder:
            check_record(folder, self.batches)
        if self._average is not None:
            self._average.start_from = folder
        skip_nothing = self.args.ignore_data_skip
        self.args.ignore_data_skip = skip_nothing or self._follow is not None  # the sampler begins where training goes on
        wait_for_others()
        self._prepare_meter()
        note_launch(self.args)
        self.pieces.start()
        try:
            with self._fast_training():
                result = super().train(resume_from_checkpoint=folder, **kwargs)
        finally:
            self.args.ignore_data_skip = skip_nothing
            self._profiler.close()
            self.stop_on_signal.restore()
            if self._follow is not None and self._follow.sampler is not None:
                self._follow.sampler.close()
            if isinstance(base := getattr(self._loader, "base_dataloader", None), AheadLoader):
                base.close()
        self.train_seconds = self._seconds_so_far()
        self.speed = self.meter.summary() | {"graphs_compiled": graphs_compiled(), "updates_in_pieces": self.pieces.updates_cut}
        if self.is_world_process_zero():
            logger.info("trained on %s", summary_line(self.speed))
        if self.stop_on_signal.stopping:
            logger.warning("stopped at update %d; the same command with --resume_from_checkpoint goes on", self.state.global_step)
            raise SystemExit(128 + self.stop_on_signal.stopping)
        if self._average is not None:
            self._average.keep(self.state.best_model_checkpoint if self.args.load_best_model_at_end else None)
        elif self.args.average_checkpoints:
            self.accelerator.wait_for_everyone()  # for the last checkpoint, which the first process writes
            load_mean(self.model, self.args.output_dir, self.args.average_checkpoints, self.state.global_step)
        return result

    def _fast_training(self) -> AbstractContextManager:
        """Return what a training runs in: see `FastTraining`."""
        args = self.args
        if args.n_gpu > 1:  # DataParallel's copies of the model would call the methods of the first
            return nullcontext()
        mode = "off" if self._is_split and args.compile == "auto" else compile_mode(args.compile, args.device)
        # a model that will be split is not on its device yet; a CPU's code is the same for any size
        trial_seconds = 0.0 if self._is_split else args.max_batch_seconds / 2 if args.device.type == "cuda" else 1.0
        return FastTraining(self.model, mode, autocast=args.half, trial_seconds=trial_seconds)

    def _run_epoch(self, *args, **kwargs):
        """Train for an epoch, unless all updates were made before: Trainer would make one more each time such a run is resumed."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Train on a batch, in pieces where it does not fit the memory: see `Pieces`."""
        step = super().training_step
        if num_items_in_batch is None:  # not by Trainer's loop; the loss of a piece would be a mean over its own labels
            return step(model, inputs)

        def run(piece, last):
            with nullcontext() if last else unsynchronised(self, model):
                return step(model, dict(piece), num_items_in_batch)

        try:
            return self.pieces.step(inputs, run, ends_update=self.accelerator.sync_gradients)
        except RowTooLong as error:
            if self.accelerator.distributed_type != DistributedType.NO:
                end_process(str(error), 1)
            raise

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the summed loss over `num_items_in_batch` labels, times the processes over which DDP averages.

        Evaluation counts CTC alone, training also what `consistency` and `label_smoothing_factor` add.
        """
        labels = inputs[LABELS]
        consistency, smoothing = (self.args.consistency, self.args.label_smoothing_factor) if model.training else (0.0, 0.0)
        if consistency:
            inputs = two_views(inputs)
        outputs = model(**model_inputs(inputs, masked=self._masked))
        frames, label_lengths = output_lengths(self.model, torch.from_numpy(inputs[INPUT_LENGTHS])), torch.from_numpy(inputs[LABEL_LENGTHS])
        config = self.model.config
        loss = ctc_loss_sum(
            outputs.logits, inputs[LABELS], frames, config.pad_token_id, zero_infinity=config.ctc_zero_infinity,
            label_lengths=label_lengths, consistency=consistency, smoothing=smoothing,
        )  # fmt: skip
        if model.training and self.meter.gathers:
            self.meter.count_blanks(outputs.logits.detach(), frames, config.pad_token_id)
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
        collate = self.data_collator
        if getattr(sampler, "shapes", None) is not None:  # evaluation, which the trainer's own collator serves, takes no filling
            collate = CTCCollator(self._processor, collate.quarantine, sampler.shapes)
        self._loader = training_loader(rows, sampler, collate, self.args, endless=self._follow is not None)
        return self._loader

    def get_eval_dataloader(self, eval_dataset=None):
        """Return Trainer's loader, with workers that live through a signal to stop."""
        return with_steady_workers(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset):
        """Return Trainer's loader, with workers that live through a signal to stop."""
        return with_steady_workers(super().get_test_dataloader(test_dataset))

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Fetch the batches of an update, and count how long that takes and what is in them."""
        moved = map(partial(send_to_device, device=device, non_blocking=True), self.meter.waiting(epoch_iterator))
        batches, labels = super().get_batch_samples(moved, num_batches, device)
        self.meter.count(batches, frozen=self.state.global_step < self.args.freeze_encoder_updates)
        return batches, labels

    def evaluate(self, *args, **kwargs):
        """Evaluate; the time does not count as time of training."""
        with self.meter.paused():
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        """Evaluate the moving average where there is one, and the weights that are trained where there is none."""
        with self._average.in_place() if self._average is not None else nullcontext():
            if not self._is_split:
                share_buffers(self.model)
            return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return the loss, the label id of every frame `(B, T)` with -100 past each row's end, and the labels `(B, L)`.

        A row with a character that has no symbol, which is a blank among its labels, has no loss, as in training.
        """
        inputs = self._prepare_inputs(inputs)
        unknown = (inputs[LABELS] == self.model.config.pad_token_id).any(-1, keepdim=True)
        with torch.no_grad(), self.compute_loss_context_manager():
            labels = inputs[LABELS].masked_fill(unknown, PADDING)
            counts = (labels != PADDING).sum(-1).cpu().numpy()
            loss, outputs = self.compute_loss(model, {**inputs, LABELS: labels, LABEL_LENGTHS: counts}, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        frames = output_lengths(self.model, torch.from_numpy(inputs[INPUT_LENGTHS]))
        return loss.detach(), frame_labels(outputs.logits, frames), inputs[LABELS]

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Build Trainer's optimiser, with `layer_decay` over groups of parameters by depth."""
        if self.args.layer_decay != 1 and self.optimizer is None:
            model = self.model if model is None else model
            kind, settings = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
            if makes_own_groups(kind, settings):
                raise ValueError(f"optim {self.args.optim} makes groups of parameters of its own; use another, or layer_decay 1")
            groups = parameter_groups(
                model,
                learning_rate=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                layer_decay=self.args.layer_decay,
                decayed=self.get_decay_parameter_names(model),
            )
            self.optimizer_cls_and_kwargs = (kind, {**settings, "params": groups})
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Build the tri-stage schedule when `tri_stage` is given, else Transformers' own."""
        if self.args.tri_stage is not None and self.lr_scheduler is None:
            shape = partial(tri_stage_scale, updates=num_training_steps, shares=self.args.tri_stage, final=self.args.tri_stage_final_scale)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, shape)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _save_checkpoint(self, model, trial) -> None:
        """Save the moving average too, before Trainer writes what makes a checkpoint whole."""
        with self.meter.paused():
            if self._average is not None and self.args.should_save:
                self._average.save(Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}"))
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the model, with LoRA merged; and beside it, alone, the updates of LoRA or the language adapter."""
        folder, gathered = Path(output_dir or self.args.output_dir), state_dict
        if self.args.should_save and self.args.lora_rank:  # the others come here too from Transformers 5.23 on
            state_dict = merged_state_dict(self.model, gathered)
        super()._save(output_dir, state_dict=state_dict)
        if self.args.should_save and self.args.lora_rank:
            write_lora(self.model, folder / LORA_FOLDER, gathered)
        if self.args.should_save and self.args.adapter_language is not None:
            write_language_adapter(self.model, folder, self.args.adapter_language, gathered)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Load the weights of a checkpoint; with LoRA the updates, for the merged weights could not be parted again."""
        if self.args.lora_rank:
            load_lora(self.model if model is None else model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self.args.lora_rank:
            load_lora(self.model, Path(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()

    def _save_rng_state(self, output_dir: str) -> None:
        """Save what each process draws next, where it is in a stream, and what the run's updates follow from.

        Trainer then writes trainer_state.json, which makes the checkpoint whole; no process may lack its part by then.
        """
        super()._save_rng_state(output_dir)
        if self._follow is not None:
            state = self._follow.sampler.state(self.state.global_step)
            write_text(stream_state_path(output_dir, self.args.process_index), json.dumps(state))
        if self.args.should_save:
            write_record(output_dir, self.batches)
        if self.args.world_size > 1:  # with `save_alone` no other process comes here
            self.accelerator.wait_for_everyone()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with the random numbers of a checkpoint; draw anew, differently on each process, where it has none for this one."""
        if checkpoint is None or not draws_anew(checkpoint, self.args.world_size, self.args.process_index):
            super()._load_rng_state(checkpoint)
        else:
            set_seed(process_seed(self.batches.seed, self.state.global_step, self.args.process_index))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Do nothing: `finish_run` pushes the whole run folder at the end, and makes the repository then."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the meter has read since the last log, and the seconds of training, to the training logs."""
        if not math.isfinite(logs.get("loss", 0.0)):
            self._tr_loss.zero_()  # Trainer clears its sum by subtracting it from itself, after which a NaN would stay
        if "loss" in logs:
            logs |= self.meter.read() | {"train_seconds": round(self._seconds_so_far(), 1)}
        logs.pop("train_samples_per_second", None)  # of per_device_train_batch_size, which batches do not follow
        super().log(logs, start_time)

    def transcribe(self, rows: Dataset) -> list[str]:
        """Recognise rows; every process must call it, and each gets all results.

        Args:
            rows: Rows with `audio` and `target`.

        Returns:
            The recognised target of each row, in the order of the rows.
        """
        rows, order = by_duration(rows, self._processor.tokenizer)
        frame_ids = self.predict(rows).predictions
        return in_order(decode_frames(frame_ids, self._processor.tokenizer, self.model.config.pad_token_id), order)

    def _sampler(self, rows: Dataset, args: CTCTrainingArguments) -> DurationBatchSampler:
        durations = column(rows, "duration").to_numpy()
        check_budget(durations, args.max_batch_seconds, args.views)
        return DurationBatchSampler(
            durations,
            args.batch_seconds,
            batches_per_update=self.batches.batches_per_update,
            num_processes=args.world_size,
            process_index=args.process_index,
            seed=self.batches.seed,
            batch_shapes=self.batches.batch_shapes,
        )

    def _settle_batches(self, args: CTCTrainingArguments, table: Dataset | None, optimizer: tuple | None) -> int:
        """Settle what a batch and an update hold; return the batches of an update."""
        longest, labels = longest_row(table, args)

        def measure() -> float:
            held = held_bytes(self.model, args, optimizer or self.get_optimizer_cls_and_kwargs(args, self.model))
            return measure_budget(
                self.model, args, self.compute_loss, CTCCollator(self._processor), longest_seconds=math.ceil(longest), labels=labels,
                reserved_bytes=held, memory=CudaMemory(args.device),
            )  # fmt: skip

        return settle_batches(args, args.views * longest, self._facts, measure)

    def _memory_ran_out(self, seconds: float) -> None:
        """Keep the limit of a piece for what comes after this run; where other processes wait for this one, end the run."""
        write_limit(self.args.output_dir, seconds, device_name(self.args.device))
        # a budget must hold the longest row; a piece need not
        lower_budget(self._facts, self.args.views * max(seconds, self._facts["longest_seconds"]))
        if self.accelerator.distributed_type != DistributedType.NO:
            leave_for_restart(self, seconds, can_save=self._follow is None and not self._is_split)

    @property
    def _is_split(self) -> bool:
        """Whether no process holds the whole model, or its optimiser."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _seconds_so_far(self) -> float:
        return self._seconds_before + time.monotonic() - self._start

    def _prepare_meter(self) -> None:
        self.meter.prepare(
            self.model,
            self.args.device,
            self.accelerator.gather,
            dtype=self.args.half or torch.float32,
            row_seconds=column(self.train_dataset, "duration").to_numpy() if self._follow is None else None,
            frozen_start=encoder_of(self.model) if self.args.freeze_encoder_updates else None,
        )
