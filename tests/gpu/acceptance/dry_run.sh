#!/bin/sh
# Rehearses the GPU check where only the packages of packages.txt are: a fresh environment, CPU rows in the place of
# CUDA's. It finds a package that nobody listed before a GPU's time is spent.
#
#   tests/gpu/acceptance/dry_run.sh [FOLDER]     takes the results; PYTHON=python3.12 names the interpreter,
#                                                TORCH_INDEX= (empty) leaves out PyTorch's own index of CPU builds
set -eu
home=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mktemp -d) index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --no-deps --only-binary :all: -c "$home/constraints/cpu.txt" \
    ${index:+--extra-index-url "$index"} -r "$home/tests/gpu/acceptance/packages.txt"
cd "$work"
PYTHONPATH="$home" venv/bin/python -m tests.gpu.acceptance --dry-run --out "${1:-$work}"
