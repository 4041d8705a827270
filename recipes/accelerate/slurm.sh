#!/bin/bash
# sbatch --nodes 8 recipes/accelerate/slurm.sh recipes/kk_char.py --corpus /data/ISSAI_KSC2 --output_dir /runs/kk
# Corpus, output_dir and $HFASR_CACHE are on a disk that all nodes share. Five minutes before its time is up the job saves a checkpoint
# and is put back into the queue, where it goes on from there.
#SBATCH --job-name=hfasr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=128
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

processes=$((SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-8}))
read -r first_node < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# of two jobs that meet on a node
port=$((20000 + SLURM_JOB_ID % 20000))

# seconds that the launcher leaves its processes to save after a SIGTERM
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
# else processes that are started again may call each other at the addresses of the last start (pytorch/pytorch#135712)
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

srun --kill-on-bad-exit=1 bash -c "accelerate launch --config_file recipes/accelerate/two_nodes.yaml \
  --num_machines $SLURM_NNODES --num_processes $processes --machine_rank \$SLURM_NODEID \
  --main_process_ip $first_node --main_process_port $port --rdzv_backend c10d --max_restarts 3 \
  \"\$@\" --resume_from_checkpoint" hfasr "$@" &
step=$!

# The launcher passes SIGTERM on; each process finishes its update, saves and ends.
requeue() {
  scancel --signal=TERM "$SLURM_JOB_ID.0"
  wait "$step" || true
  scontrol requeue "$SLURM_JOB_ID"
}
trap requeue USR1
wait "$step"
