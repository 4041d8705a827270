"""FSDP2 on two processes, by the configuration that is shipped and by Accelerate's own wrapping; values, saving and loading."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model, load_fsdp_model, load_fsdp_optimizer, save_fsdp_model, save_fsdp_optimizer
from accelerate.utils.launch import prepare_multi_gpu_env
from recipe_runs import REPOSITORY
from test_processes import FLAGS
from together import together
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCTC, TrainerState, UniSpeechConfig, UniSpeechForCTC

from hfasr.training.callbacks import FreezeEncoder
from hfasr.training.checkpoints import damage
from hfasr.training.loss import ctc_loss_sum
from hfasr.training.processes import SameLayers, check_sharding, fill_state, prepare_fsdp

UPDATES = 3
LAYERS = [f"unispeech.encoder.layers.{number}" for number in range(4)]
FIELDS = {
    "vocab_size": 10, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "do_stable_layer_norm": True, "feat_extract_norm": "layer",
    "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
    "mask_time_prob": 0.0, "pad_token_id": 0,
}  # fmt: skip


def build(layerdrop: float) -> UniSpeechForCTC:
    torch.manual_seed(0)
    model = UniSpeechForCTC(UniSpeechConfig(**FIELDS, layerdrop=layerdrop)).double().train()
    model.freeze_feature_encoder()
    return model


def halves() -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    waveforms = torch.randn(4, 4000, generator=draw, dtype=torch.float64)
    labels = torch.randint(1, 10, (4, 3), generator=draw)
    return [(waveforms[:2], labels[:2]), (waveforms[2:], labels[2:])]


def loss_of(model, waveforms, labels) -> torch.Tensor:
    logits = model(waveforms).logits
    return ctc_loss_sum(logits, labels, torch.full((len(labels),), logits.shape[1]), 0, zero_infinity=True) / 12


class Training:
    """AdamW on some batches."""

    def __init__(self, model, batches, scale: float):
        self.model, self.batches, self.scale = model, batches, scale
        self.freeze, self.same = FreezeEncoder(model.unispeech, 1), SameLayers(model.unispeech, seed=0)

    def begin(self) -> None:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1)

    def update(self, number: int) -> tuple[float, dict]:
        """Take an update; return the summed loss and the gradients, gathered."""
        for callback in (self.freeze, self.same):
            callback.on_step_begin(None, TrainerState(global_step=number), None)
        total = 0.0
        for waveforms, labels in self.batches:
            self.same.batch = 0  # what two processes run at the same time, one runs in a row
            loss = loss_of(self.model, waveforms, labels)
            (loss * self.scale).backward()
            total += float(loss.detach())
        gradients = {name: whole(parameter.grad) for name, parameter in self.model.named_parameters() if parameter.grad is not None}
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, gradients


def whole(tensor: torch.Tensor):
    return getattr(tensor, "full_tensor", lambda: tensor)().numpy(force=True).copy()


def fsdp_plugin():
    """Return Accelerate's plugin as `accelerate launch --config_file fsdp.yaml` leads to it."""
    file = REPOSITORY / "recipes" / "accelerate" / "fsdp.yaml"
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(file), "recipe.py"]))
    os.environ.update({name: value for name, value in prepare_multi_gpu_env(args).items() if name.startswith("FSDP_")})
    return FullyShardedDataParallelPlugin()


def shard_train_and_save(layerdrops: list[float], folder: str) -> list[dict]:
    PartialState(cpu=True)  # connects the processes
    return [shard_and_train(layerdrop, f"{folder}/{layerdrop}") for layerdrop in layerdrops]


def shard(layerdrop: float) -> tuple[Training, SimpleNamespace]:
    """Return a sharded model's training, and what Accelerate knows of it."""
    rank, plugin, model = distributed.get_rank(), fsdp_plugin(), build(layerdrop)
    training = Training(model, [halves()[rank]], scale=2.0)  # FSDP takes the mean of the processes' gradients
    check_sharding(arguments(), plugin, None)
    prepare_fsdp(plugin, model)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="no", is_main_process=rank == 0, device="cpu", process_index=rank,
        num_processes=2, wait_for_everyone=distributed.barrier, is_fsdp2=True,
    )  # fmt: skip
    training.model = fsdp2_prepare_model(accelerator, model)
    training.begin()
    fill_state(training.optimizer)  # a layer has had no gradient by the third update, and the mask's vector never has one
    return training, accelerator


def shard_and_train(layerdrop: float, folder: str) -> dict:
    training, accelerator = shard(layerdrop)
    plugin, rank = accelerator.state.fsdp_plugin, distributed.get_rank()
    sharded = [name for name, module in training.model.named_modules() if isinstance(module, FSDPModule)]
    torch.manual_seed(rank)  # the processes draw differently, as after a resume; the layers that they drop may not
    updates = [training.update(number) for number in range(UPDATES)]
    save_fsdp_model(plugin, accelerator, training.model, folder)
    save_fsdp_optimizer(plugin, accelerator, training.optimizer, training.model, folder)
    state = get_model_state_dict(training.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        training.model.save_pretrained(folder, state_dict=state)
    after = training.update(UPDATES)

    again, accelerator = shard(layerdrop)
    load_fsdp_model(plugin, accelerator, again.model, folder)
    load_fsdp_optimizer(plugin, accelerator, again.optimizer, again.model, folder)
    again.update(UPDATES)
    pairs = zip(training.model.parameters(), again.model.parameters(), strict=True)
    resumed = all(torch.equal(one.to_local(), other.to_local()) for one, other in pairs)
    losses, gradients = zip(*updates, after, strict=True)
    return {"losses": list(losses), "gradients": gradients if rank == 0 else None, "sharded": sharded, "resumed": resumed}


def test_sharded_training_equals_that_of_the_whole_model(tmp_path):
    layerdrops = [0.0, 0.5]
    first, second = together(shard_train_and_save, 2, layerdrops, str(tmp_path))
    for layerdrop, half, other in zip(layerdrops, first, second, strict=True):
        model = build(layerdrop)
        training = Training(model, halves(), scale=1.0)
        training.begin()
        updates = [training.update(number) for number in range(UPDATES)]
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        losses, gradients = zip(*updates, training.update(UPDATES), strict=True)

        assert {"", *LAYERS} <= set(half["sharded"])
        assert [one + two for one, two in zip(half["losses"], other["losses"], strict=True)] == pytest.approx(losses, rel=1e-12)
        for found, expected in zip(half["gradients"], gradients, strict=True):
            assert found.keys() == expected.keys()
            for name in expected:
                torch.testing.assert_close(torch.from_numpy(found[name]), torch.from_numpy(expected[name]), rtol=1e-9, atol=1e-12)
        trained = [{layer for layer in LAYERS if any(name.startswith(layer) for name in step)} for step in gradients]
        assert not trained[0], "the encoder is frozen in the first update"
        assert (min(map(len, trained[1:])) < len(LAYERS)) == (layerdrop > 0)

        folder = tmp_path / str(layerdrop)
        loaded = UniSpeechForCTC.from_pretrained(folder, dtype=torch.float64).state_dict()
        assert loaded.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(loaded[name], value, rtol=1e-9, atol=1e-9)
        assert half["resumed"]
        assert other["resumed"]
        (folder / "trainer_state.json").write_text("{}")
        torch.save({}, folder / "scheduler.pt")
        assert not damage(folder), "a checkpoint as Trainer writes it is whole"
        (folder / "optimizer.bin").unlink()
        assert damage(folder) == "optimizer.bin is missing"


def arguments(**changes) -> Namespace:
    nothing = {"novograd": None, "lora_rank": 0, "ema_decay": 0.0, "average_checkpoints": 0, "layer_decay": 1.0}
    return Namespace(**nothing | {"freeze_encoder_updates": 0, "weight_decay": 0.0} | changes)


def plugin(**changes) -> SimpleNamespace:
    return SimpleNamespace(**{"fsdp_version": 2, "cpu_ram_efficient_loading": False, "state_dict_type": "FULL_STATE_DICT"} | changes)


@pytest.mark.parametrize(
    ("args", "fsdp", "zero_stage", "message"),
    [
        (arguments(novograd=[0.8, 0.5]), plugin(), None, "novograd takes the norm of whole tensors"),
        (arguments(novograd=[0.8, 0.5]), None, 2, "novograd takes the norm of whole tensors"),
        (arguments(lora_rank=8), plugin(), None, "LoRA is saved merged"),
        (arguments(ema_decay=0.999), None, 2, "average whole weights"),
        (arguments(average_checkpoints=2), plugin(), None, "average whole weights"),
        (arguments(), plugin(fsdp_version=1), None, "fsdp_version is 1"),
        (arguments(), plugin(cpu_ram_efficient_loading=True), None, "without weights"),
        (arguments(), plugin(state_dict_type="SHARDED_STATE_DICT"), None, "is SHARDED_STATE_DICT, of which no model"),
        (arguments(), None, 3, "ZeRO stage 3"),
        (arguments(layer_decay=0.9), None, 2, "take it out there"),
        (arguments(freeze_encoder_updates=10, weight_decay=0.01), None, 2, "weight_decay 0.01 would shrink the encoder"),
    ],
)
def test_what_a_sharded_model_cannot_do_is_refused(args, fsdp, zero_stage, message):
    deepspeed = None if zero_stage is None else SimpleNamespace(zero_stage=zero_stage, deepspeed_config={"optimizer": {}})
    with pytest.raises(ValueError, match=message):
        check_sharding(args, fsdp, deepspeed)


def test_a_model_of_unknown_layers_is_not_sharded_in_one_piece():
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    model = torch.nn.Linear(2, 2)
    model.config, model.base_model = SimpleNamespace(model_type="strange"), torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="layers of a strange to shard is not known"):
        prepare_fsdp(SimpleNamespace(auto_wrap_policy=transformer_auto_wrap_policy, transformer_cls_names_to_wrap=None), model)


@pytest.mark.gpu
def test_the_settings_train_save_and_go_on_on_one_gpu(toy_release, tmp_path):
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/fsdp.yaml", "--num_processes", "1",
        "recipes/ky_phoneme.py", "--corpus", str(toy_release), "--output_dir", str(tmp_path / "run"), *FLAGS, "--bf16", "true",
        "--freeze_encoder_updates", "3",
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=300)
    whole = json.loads((tmp_path / "run" / "results.json").read_text())["updates"]
    kept = sorted((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    subprocess.run([*command, "--resume_from_checkpoint", str(kept[0])], cwd=REPOSITORY, check=True, timeout=300)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["updates"] == whole
    model = AutoModelForCTC.from_pretrained(tmp_path / "run")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
