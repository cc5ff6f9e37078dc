# syntax=docker/dockerfile:1
# scarlet-bench with the GPU packages. Two images come of it:
#   use    docker build --target use --tag scarlet-bench .        what `make docker-bench` runs
#   test   docker build --target test --tag scarlet-bench-test .  the same with what the tests and `make gpu-check` need
# PyTorch's packages bring the CUDA libraries; the base image brings what makes the driver visible. TensorRT is in them
# where NVIDIA's own package index can be reached (docs/gpu.md).

ARG CUDA_VERSION=13.0.2
ARG UBUNTU_VERSION=24.04

FROM nvidia/cuda:${CUDA_VERSION}-base-ubuntu${UBUNTU_VERSION} AS system
# g++ for torch.compile, git for the revision that a run notes down.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ git make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 bench && mkdir /app && chown bench:bench /app
# The base image leaves out "video", without which the GPU's JPEG engine is out of reach.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER bench
WORKDIR /app

FROM system AS packages
# The packages are installed in place: the folder must be the same when they are used.
COPY --chown=bench:bench pyproject.toml setup.py scarlet_bench.py README.md LICENSE Makefile ./
COPY --chown=bench:bench constraints constraints
COPY --chown=bench:bench tools tools
COPY --chown=bench:bench scarlet scarlet
COPY --chown=bench:bench export export
COPY --chown=bench:bench pipelines pipelines
COPY --chown=bench:bench bench bench
# While an image is built, no GPU is to be seen: the extra is named instead of detected.
RUN make setup EXTRAS=gpu

FROM packages AS test
RUN make setup-dev EXTRAS=gpu
COPY --chown=bench:bench docs docs
COPY --chown=bench:bench tests tests
COPY --chown=bench:bench Dockerfile .dockerignore CONTRIBUTING.md ./
COPY --chown=bench:bench results/baselines results/baselines
CMD ["make", "gpu-check", "EXTRAS=gpu"]

FROM packages AS use
ENTRYPOINT [".venv/bin/scarlet-bench"]
CMD ["run", "--devices", "cuda"]
