#!/bin/bash
# Trains on all devices of this machine, in one process.
#
#   launch/local.sh --config=configs/demo.py
#   launch/local.sh --dry_run --config=configs/demo.py   prints the command and runs nothing
#
# PYTHON=.venv/bin/python names another Python.
set -euo pipefail
cd "$(dirname "$0")/.."

print_command() { printf '%q ' "$@" && echo; }
run=(exec)
if [[ ${1:-} == --dry_run ]]; then
  run=(print_command)
  shift
fi
"${run[@]}" "${PYTHON:-python}" -m vivit_jax.main "$@"
