#!/bin/bash
# Trains on a slice of TPUs in Google's cloud: takes the slice or creates it, installs this folder on
# all of its hosts, and runs the command on them. After a preemption it does so again, and the run
# goes on from its checkpoint.
#
#   export TPU_NAME=vivit ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite
#   launch/tpu_pod.sh --config=configs/kinetics400_fe.py --workdir=/mnt/runs/fe
#   launch/tpu_pod.sh --dry_run --config=...    prints the commands and runs nothing
#   launch/tpu_pod.sh --delete                  deletes the slice, which costs money until then
#
# SPOT=1 asks for cheap capacity that may be taken away; QUEUED=1 waits until there is capacity.
# The run folder must be on a file system that all hosts share.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TPU_NAME:?name the slice, as in: export TPU_NAME=vivit}" "${ZONE:?such as us-west4-a}"

print_command() { printf '%q ' "$@" && echo; }
run=()
if [[ ${1:-} == --dry_run ]]; then
  run=(print_command)
  shift
fi

tpus() { "${run[@]}" gcloud compute tpus "$@" --zone="$ZONE"; }

state() { # empty if there is no slice
  gcloud compute tpus tpu-vm describe "$TPU_NAME" --zone="$ZONE" --format='value(state)' \
    2>/dev/null || true
}

delete_slice() {
  if [[ ${QUEUED:-} ]]; then
    tpus queued-resources delete "$TPU_NAME" --quiet --force
  else
    tpus tpu-vm delete "$TPU_NAME" --quiet
  fi
}

create_slice() {
  local options=(--accelerator-type="${TYPE:?such as v5litepod-16}"
    --version="${VERSION:?such as v2-alpha-tpuv5-lite}" ${SPOT:+--spot})
  if [[ ${QUEUED:-} ]]; then
    options=("${options[@]/--version=/--runtime-version=}")
    tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" "${options[@]}"
  else
    tpus tpu-vm create "$TPU_NAME" "${options[@]}"
  fi
}

on_all_hosts() { tpus tpu-vm ssh "$TPU_NAME" --worker=all --command="$1"; }

prepare_slice() {
  case $(state) in
    PREEMPTED | TERMINATED | STOPPED)
      delete_slice
      create_slice
      ;;
    '') create_slice ;;
  esac
  until [[ ${run[*]} || $(state) == READY ]]; do sleep "${POLL_SECONDS:-30}"; done
  "${run[@]}" tar czf /tmp/vivit_jax.tar.gz --exclude='./.?*' --exclude=./runs .
  tpus tpu-vm scp /tmp/vivit_jax.tar.gz "$TPU_NAME:" --worker=all
  on_all_hosts "mkdir -p vivit_jax && tar xzf vivit_jax.tar.gz -C vivit_jax && cd vivit_jax &&
    python3 -m venv .venv && .venv/bin/pip install --quiet -e '.[tpu]'"
}

if [[ ${1:-} == --delete ]]; then
  delete_slice
  exit
fi
prepare_slice
# As long as the command fails because the slice is gone, make the slice anew.
until on_all_hosts "cd vivit_jax && .venv/bin/python -m vivit_jax.main $(printf '%q ' "$@")"; do
  if [[ $(state) == READY ]]; then exit 1; fi
  prepare_slice
done
