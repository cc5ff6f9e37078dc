#!/bin/sh
# Remakes constraints/cpu.txt, gpu.txt and gpu12.txt from pyproject.toml. Versions already pinned are kept where
# they still fit; "--upgrade" or "--upgrade-package NAME" takes newer ones.
#
#   make constraints            keep what is pinned
#   make constraints ARGS=--upgrade
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || .venv/bin/python -m pip install --quiet uv

for extra in cpu gpu gpu12; do
    file="constraints/$extra.txt"
    work="$file.new"
    cp "$file" "$work" 2>/dev/null || : # none yet
    # --universal writes one file for every Python from 3.10 up, with markers where versions differ.
    "$uv" pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
        --extra "$extra" --extra dev "$@" -o "$work" pyproject.toml
    {
        echo "# Every package of the extras '$extra' and 'dev', pinned, for Python 3.10 and newer."
        echo "# Made by \`make constraints\` (uv pip compile --universal); do not edit by hand."
        if [ "$extra" = cpu ]; then
            # A CPU build of torch needs none of these, and naming them here would suggest otherwise. A CUDA build
            # that lands on such a machine all the same asks for exact versions itself.
            echo "# The CUDA libraries that torch's default Linux build asks for are left out."
            grep -Ev "^(#|triton=|cuda-|nvidia-(cu|nccl|nvjitlink|nvshmem|nvtx))|'win32'" "$work"
        else
            grep -Ev "^#|'win32'" "$work"
        fi
    } >"$file.done"
    mv "$file.done" "$file"
    rm "$work"
    echo "$file: $(grep -c == "$file") pins"
done
