#!/bin/bash
# The caching stage on Slurm: a Ray of this job's own over its nodes, which ends with the job.
#
#   sbatch configs/cluster/slurm.sh configs/sdxl.yaml [section.key=value ...]
#
# The folder of submission and its .venv must be on storage that every node sees, as must all paths of the setup.
# Killed, timed out or pre-empted: submit the same line again; finished shards are skipped.
#SBATCH --job-name=pea-cache
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

setup=${1:?"usage: sbatch $0 SETUP.yaml [section.key=value ...]"}
shift
cd "${SLURM_SUBMIT_DIR:-$PWD}"
source "${PEA_VENV:-.venv}/bin/activate"

# Only who has the token can use the cluster; it reaches the nodes through the environment, not the command line.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 12000)) # above the ports of workers (10002 to 19999), below those the system gives away
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_PER_TASK:-0}

trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

start_ray() { # NODE, further arguments of `ray start`
  local node=$1
  shift
  srun --nodes=1 --ntasks=1 --nodelist="$node" --export=ALL \
    ray start --block --disable-usage-stats --num-cpus="$cpus" --num-gpus="$gpus" "$@" &
}

start_ray "$head" --head --node-ip-address="$address" --port="$port" --include-dashboard=false
sleep "${PEA_HEAD_SECONDS:-20}"
for node in "${nodes[@]:1}"; do
  start_ray "$node" --address="$address:$port"
done

# Nodes that come later take part as they come.
RAY_ADDRESS="$address:$port" python -m stages.cache_teacher --config "$setup" "$@"
