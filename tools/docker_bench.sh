#!/usr/bin/env bash
# `make docker-bench`: builds the image and runs scarlet-bench in it, on the GPU, as the user who calls.
# Takes make's variables from the environment and further options of `scarlet-bench run` as arguments. Images and results
# stay in ./data and ./results, artefacts in ./.cache; DATA and CHECKPOINT are mounted read-only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v docker >/dev/null; then
  printf "error: there is no 'docker' here\n       Install Docker and the NVIDIA Container Toolkit: docs/gpu.md says what for\n" >&2
  exit 1
fi

image=scarlet-bench
docker build --target use --tag "$image" .

mounts=() options=(--devices "${DEVICES:-cuda}")
for folder in data results .cache; do
  mkdir -p "$folder"
  mounts+=(--volume "$PWD/$folder:/app/$folder")
done
if [ -n "${DATA:-}" ]; then
  mounts+=(--volume "$(realpath "$DATA"):/images:ro")
  options+=(--data /images)
fi
if [ -f "${CHECKPOINT:-}" ]; then
  mounts+=(--volume "$(realpath "$CHECKPOINT"):/weights/$(basename "$CHECKPOINT"):ro")
  options+=(--checkpoint "/weights/$(basename "$CHECKPOINT")")
elif [ -n "${CHECKPOINT:-}" ]; then
  options+=(--checkpoint "$CHECKPOINT")
fi
for name in MODEL BACKENDS PRECISIONS BATCHES IMAGES PIPELINE BUDGET; do
  [ -z "${!name:-}" ] || options+=("--$(tr '[:upper:]' '[:lower:]' <<<"$name")" "${!name}")
done

# --ipc=host: PyTorch wants more shared memory than a container is given.
exec docker run --rm --gpus all --ipc=host --user "$(id -u):$(id -g)" --env HOME=/tmp "${mounts[@]}" "$image" \
  run "${options[@]}" "$@"
