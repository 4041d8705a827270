"""The launch settings in recipes/accelerate are read by Accelerate itself, and lead to what their comments say."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "recipes" / "accelerate"
KINDS = {
    "one_gpu": (DistributedType.NO, 1, 1),
    "one_node": (DistributedType.MULTI_GPU, 8, 1),
    "two_nodes": (DistributedType.MULTI_GPU, 16, 2),
    "fsdp": (DistributedType.FSDP, 8, 1),
    "deepspeed": (DistributedType.DEEPSPEED, 8, 1),
}


def launched(*arguments: str):
    """Return what the launcher makes of a command line and the file that it names."""
    return _validate_launch_command(launch_command_parser().parse_args([*arguments]))[0]


def test_each_file_is_read_and_none_is_forgotten():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)
    for name, (kind, processes, machines) in KINDS.items():
        config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
        assert (config.distributed_type, config.num_processes, config.num_machines) == (kind, processes, machines)
        assert config.mixed_precision is None, "precision is the recipe's"
        command = (FOLDER / f"{name}.yaml").read_text()
        assert f"recipes/accelerate/{name}.yaml" in command


def test_fsdp_settings_are_all_known_to_the_launcher():
    settings = yaml.safe_load((FOLDER / "fsdp.yaml").read_text())["fsdp_config"]
    known = vars(launch_command_parser().parse_args(["recipe.py"]))
    assert set(settings) <= set(known)
    environment = prepare_multi_gpu_env(launched("--config_file", str(FOLDER / "fsdp.yaml"), "recipe.py"))
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert environment["FSDP_RESHARD_AFTER_FORWARD"] == "true"


def test_deepspeed_settings_leave_batches_and_clipping_to_the_recipe():
    settings = yaml.safe_load((FOLDER / "deepspeed.yaml").read_text())["deepspeed_config"]
    assert set(settings) <= set(vars(launch_command_parser().parse_args(["recipe.py"])))
    args = launched("--config_file", str(FOLDER / "deepspeed.yaml"), "recipe.py")
    args.deepspeed_fields_from_accelerate_config = ",".join(settings)  # as launch_command does
    _, environment = prepare_deepspeed_cmd_env(args)
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
    # what is not given here Accelerate calls "auto", and Trainer fills in
    assert not {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING"} & set(environment)


def test_two_nodes_take_their_rank_and_address_from_the_command():
    args = launched("--config_file", str(FOLDER / "two_nodes.yaml"), "--machine_rank", "1", "--main_process_ip", "10.0.0.1", "recipe.py")
    prepare_multi_gpu_env(args)
    assert (args.nnodes, args.nproc_per_node, args.node_rank, args.rdzv_endpoint) == ("2", "8", 1, "10.0.0.1:29500")


def slurm(folder: Path, nodes: int, **commands: str) -> tuple[list[str], dict]:
    """Return a job's command and environment, with stand-ins for Slurm's commands."""
    for name, lines in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
        (folder / name).chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_NNODES": str(nodes), "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "41234",
        "SLURM_JOB_NODELIST": "node[0-7]",
    }  # fmt: skip
    recipe = ["recipes/kk_char.py", "--corpus", "/data/a folder", "--model_config", '{"layerdrop": 0.1}']
    return ["bash", str(FOLDER / "slurm.sh"), *recipe], environment


@pytest.mark.parametrize("nodes", [1, 8])
def test_the_slurm_script_launches_on_every_node(tmp_path, nodes):
    script, environment = slurm(
        tmp_path,
        nodes,
        scontrol='printf "node%d\\n" 0 1',
        # a task for each node; the first argument is --kill-on-bad-exit
        srun='shift; for node in $(seq 0 $((SLURM_NNODES - 1))); do SLURM_NODEID=$node "$@"; done',
        accelerate=f'printf "%s\\0" "$@" >> {tmp_path}/calls; printf "\\1" >> {tmp_path}/calls',
    )
    subprocess.run(script, env=environment, check=True, cwd=REPOSITORY)
    calls = [call.split("\0")[:-1] for call in (tmp_path / "calls").read_text().split("\1")[:-1]]
    assert len(calls) == nodes
    for node, (verb, *arguments) in enumerate(calls):
        assert verb == "launch"
        arguments[1] = str(REPOSITORY / arguments[1])
        args = launched(*arguments)
        assert (args.num_machines, args.num_processes, args.machine_rank) == (nodes, 8 * nodes, node)
        assert (args.main_process_ip, args.main_process_port) == ("node0", 20000 + 41234 % 20000)
        # one node's process that ends starts all again: the static rendezvous cannot tell the other nodes
        assert (args.rdzv_backend, args.max_restarts) == ("c10d", 3)
        assert args.training_script == "recipes/kk_char.py"
        assert args.training_script_args == [*script[3:], "--resume_from_checkpoint"]


def test_the_slurm_job_stops_its_processes_and_goes_back_into_the_queue(tmp_path):
    script, environment = slurm(
        tmp_path,
        2,
        scontrol=f'if [ "$1" = requeue ]; then echo "requeue $2" >> {tmp_path}/told; else echo node0; fi',
        scancel=f'echo "$@" >> {tmp_path}/told; kill -TERM $(cat {tmp_path}/step)',
        srun=f'trap "echo saved >> {tmp_path}/told; exit 143" TERM; echo $$ > {tmp_path}/step; while :; do sleep 0.05; done',
    )
    job = subprocess.Popen(script, env=environment, cwd=REPOSITORY)
    end = time.monotonic() + 20
    while not (tmp_path / "step").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    job.wait(20)
    assert (tmp_path / "told").read_text().splitlines() == ["--signal=TERM 41234.0", "saved", "requeue 41234"]
