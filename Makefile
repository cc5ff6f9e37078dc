# The front door: `make` lists what there is. Every target first makes what it needs in .venv (a second time: nothing).
# A variable is set on the command line, `make bench MODEL=scarlet_a BATCHES=1,32`, or in the environment.
# Exit status: make's own, 0 or 2. Where 1 (a Case failed, or none is ok), 2 (a mistake in the call), 3 (unresolved, with
# --strict) and 130 (interrupted) must be told apart, call .venv/bin/scarlet-bench itself; check prints it.

## Model to measure: scarlet_a, scarlet_b, scarlet_c, timm/<name>, torchvision/<name>, onnx:<file>, torch:<module>:<function>
MODEL ?= scarlet_c
## Models to set beside each other, for table, such as "scarlet_a timm/resnet18"; without it the three of SCARLET
MODELS ?=
## Folder with ImageNet's validation images; without it a demo set is made
DATA ?=
## File with trained weights, or demo, random or pretrained
CHECKPOINT ?=
## Runtimes to compare, comma-separated: pytorch,onnxruntime,openvino,tensorrt
BACKENDS ?=
## Devices, comma-separated: cpu,cuda
DEVICES ?=
## Precisions, comma-separated: fp32,tf32,bf16,fp16,int8
PRECISIONS ?=
## Batch sizes to time, comma-separated: 1,8
BATCHES ?=
## What to measure, comma-separated: accuracy,latency,throughput
SCENARIOS ?=
## Numbers of intra-op threads, comma-separated: 1,2
THREADS ?=
## Copies of the model that work side by side, comma-separated: 1,2
INSTANCES ?=
## How many images to judge accuracy on: a number or all
IMAGES ?=
## What decodes and resizes the images, comma-separated: turbo,dali,dali_gpu,dali_gpu_engine,reference
PIPELINE ?=
## Seconds that the measurements may take, about
BUDGET ?=
## Folder or file to write to
OUT ?=
## Folder of an earlier run, for report and compare
RUN ?= results/latest
## 1 draws charts for papers too, for report: PDF, SVG and PNG
FIGURES ?=
## Another run, for compare: what RUN is compared with
WITH ?=
## File to check accuracy against, or to write as a baseline (default: MODEL.json or MODEL-demo.json in results/baselines)
BASELINE ?=
## Revision to check latency against: a commit, branch or tag, such as HEAD~1
AGAINST ?=
## Further options, passed on as they are: ARGS="--threads 2 --strict"
ARGS ?=
## Packages to install: cpu, gpu or (drivers before 580) gpu12; without it a GPU is looked for
EXTRAS ?=
## 0 leaves TensorRT out of a set-up for a GPU, which fetches it from NVIDIA's own index
TENSORRT ?=
## Python 3.10 or newer (with a GPU 3.11) to make .venv with
PYTHON ?= python3
## Python that has all packages already, for gpu-check: nothing is set up then
INTERPRETER ?=

# The recipes take values from the environment, so that no quote, space or $ in a path is read as syntax.
PASSED := MODEL MODELS DATA CHECKPOINT BACKENDS DEVICES PRECISIONS BATCHES SCENARIOS THREADS INSTANCES IMAGES \
  PIPELINE BUDGET OUT RUN FIGURES WITH BASELINE AGAINST EXTRAS TENSORRT PYTHON INTERPRETER
$(foreach name,$(PASSED),$(eval override $(name) := $$(value $(name))))
export $(PASSED)

# Values that are no options' stand behind "--": one that begins with a dash is no option either.
# $(call option,--data,DATA) is --data with DATA's value, or nothing where DATA is empty.
option = $${$(2):+$(1) "$$$(2)"}

BIN := .venv/bin
SETUP = @exec tools/setup.sh

# What the demo weights are trained and tuned on.
TRAIN_IMAGES := 16000
TUNE_IMAGES := 3000

# Two workers fit two cores; each computes on one thread, or they would fight for the cores.
TEST_WORKERS ?= 2
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev bench best plan noise export report history compare table verify parity bisect check baseline doctor demo \
  demo-weights gpu-check docker-bench test faults contracts lint constraints clean

help: ## Show this list
	@awk 'function flush_note() { note = "" } \
	  /^## / { note = substr($$0, 4); next } \
	  /^[A-Z_]+ \?=/ { if (note != "") { name = $$1; value = $$0; sub(/^[A-Z_]+ \?= */, "", value); \
	    if (value != "") note = note " (default: " value ")"; variables = variables sprintf("  %-12s %s\n", name, note) } } \
	  /^[a-z-]+:.*## / { name = $$1; sub(/:.*/, "", name); text = $$0; sub(/.*## /, "", text); \
	    targets = targets sprintf("  %-12s %s\n", name, text) } \
	  { flush_note() } \
	  END { printf "usage: make TARGET [VARIABLE=value ...]\n\ntargets\n%s\nvariables\n%s", targets, variables }' Makefile

setup: ## Make .venv with the packages for this machine
	$(SETUP) run
	@echo ".venv is ready"

setup-dev:
	$(SETUP) dev

# What bench, plan and noise have in common: every variable that was given, as an option of the command.
MODEL_OPTIONS = $(call option,--model,MODEL) $(call option,--checkpoint,CHECKPOINT) $(call option,--data,DATA)
CASE_OPTIONS = $(MODEL_OPTIONS) $(call option,--pipeline,PIPELINE) $(call option,--backends,BACKENDS) \
	  $(call option,--devices,DEVICES) $(call option,--precisions,PRECISIONS) $(call option,--batches,BATCHES) \
	  $(call option,--images,IMAGES)
RUN_OPTIONS = $(CASE_OPTIONS) $(call option,--scenarios,SCENARIOS) $(call option,--threads,THREADS) \
	  $(call option,--instances,INSTANCES) $(call option,--budget,BUDGET) $(call option,--out,OUT) $(ARGS)

bench: ## Measure accuracy, latency and throughput of MODEL, and show the table
	$(SETUP) run
	@$(BIN)/scarlet-bench run $(RUN_OPTIONS)

best: ## Find the runtime, precision, batch and split of the cores to deploy (ARGS="--accuracy-loss 0.5")
	$(SETUP) run
	@$(BIN)/scarlet-bench best $(MODEL_OPTIONS) $(call option,--pipeline,PIPELINE) $(call option,--backends,BACKENDS) \
	  $(call option,--precisions,PRECISIONS) $(call option,--batches,BATCHES) $(call option,--images,IMAGES) \
	  $(call option,--budget,BUDGET) $(call option,--out,OUT) $(ARGS)

plan: ## Show what bench would run, and about how long it would take
	$(SETUP) run
	@$(BIN)/scarlet-bench plan $(RUN_OPTIONS)

noise: ## Measure MODEL against itself: what difference can this machine resolve today?
	$(SETUP) run
	@$(BIN)/scarlet-bench noise $(RUN_OPTIONS)

export: ## Write MODEL as an ONNX file, checked against PyTorch
	$(SETUP) run
	@$(BIN)/scarlet-bench export $(call option,--model,MODEL) $(call option,--checkpoint,CHECKPOINT) \
	  $(call option,--data,DATA) $(call option,--out,OUT) $(ARGS)

report: ## Show the table of RUN again, and remake its files
	$(SETUP) run
	@$(BIN)/scarlet-bench report $${FIGURES:+--figures} $(ARGS) -- "$$RUN"

history: ## Follow every Case through all runs in results, and mark what changed
	$(SETUP) run
	@$(BIN)/scarlet-bench history $(call option,--out,OUT) $(ARGS)

compare: ## Compare the Cases of RUN image by image, or RUN with the run WITH
	$(SETUP) run
	@$(BIN)/scarlet-bench compare $(ARGS) -- "$$RUN" $${WITH:+"$$WITH"}

table: ## Set MODELS beside each other: cost, published and measured accuracy, latency; as text, LaTeX and CSV
	$(SETUP) run
	@set -f; $(BIN)/scarlet-bench table $(call option,--data,DATA) $(call option,--pipeline,PIPELINE) \
	  $(call option,--backends,BACKENDS) $(call option,--devices,DEVICES) $(call option,--precisions,PRECISIONS) \
	  $(call option,--batches,BATCHES) $(call option,--images,IMAGES) $(call option,--budget,BUDGET) \
	  $(call option,--out,OUT) $(ARGS) -- $$MODELS

verify: ## Measure the published figures of MODEL with CHECKPOINT on all of DATA, and judge each
	$(SETUP) run
	@$(BIN)/scarlet-bench reproduce $(MODEL_OPTIONS) $(call option,--images,IMAGES) $(call option,--out,OUT) $(ARGS)

parity: ## Compare the pixels of PIPELINE with the reference's, stage by stage
	$(SETUP) run
	@$(BIN)/scarlet-bench parity $(MODEL_OPTIONS) $(call option,--pipeline,PIPELINE) \
	  $(call option,--images,IMAGES) $(ARGS)

bisect: ## Find the first layer in which MODEL's ONNX graph leaves PyTorch
	$(SETUP) run
	@$(BIN)/scarlet-bench bisect $(MODEL_OPTIONS) $(call option,--images,IMAGES) $(ARGS)

check: ## Check accuracy against BASELINE, or latency against the revision AGAINST
	$(SETUP) run
	@if [ -n "$$AGAINST" ]; then \
	  $(BIN)/scarlet-bench against $(CASE_OPTIONS) \
	    $(call option,--budget,BUDGET) $(call option,--out,OUT) $(ARGS) -- "$$AGAINST"; \
	else \
	  $(BIN)/scarlet-bench check $(MODEL_OPTIONS) $(call option,--baseline,BASELINE) $(ARGS); \
	fi; code=$$?; echo "exit code of scarlet-bench: $$code"; exit $$code

baseline: ## Measure accuracy, and keep the predictions as BASELINE for later checks
	$(SETUP) run
	@$(BIN)/scarlet-bench run $(CASE_OPTIONS) --scenarios accuracy --baseline "$${BASELINE:-default}" $(ARGS)

doctor: ## Say what this machine has, what is missing and how to get it
	$(SETUP) run
	@$(BIN)/scarlet-bench doctor $(ARGS)

demo: ## Make the demo set of labelled images (IMAGES of them, in OUT)
	$(SETUP) run
	@$(BIN)/scarlet-bench demo $(call option,--out,OUT) $(call option,--images,IMAGES) $(ARGS)

demo-weights: ## Train MODEL's demo weights again, to OUT (SCARLET-A and -B start from C's)
	$(SETUP) run
	@$(BIN)/python -m pipelines.demo.make --split train --images $(TRAIN_IMAGES) --out data/demo-train
	@$(BIN)/python -m pipelines.demo.make --split tune --images $(TUNE_IMAGES) --out data/demo-tune
	@mkdir -p data/demo-weights
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m scarlet.demo.train --model "$$MODEL" --data data/demo-train \
	  --tune data/demo-tune --out "$${OUT:-data/demo-weights/$$MODEL.safetensors}" $(ARGS)
	@$(BIN)/python docs/experiments/demo_card.py --model "$$MODEL" --data data/demo-card --only-accuracy \
	  --weights "$${OUT:-data/demo-weights/$$MODEL.safetensors}" --out data/demo-weights/accuracy.json

# The tests for a GPU are part of it, hence the set-up for developers.
gpu-check: ## Measure and prove all there is on this machine's GPU, in 8 minutes, into OUT/<gpu>-<date>
	@[ -n "$$INTERPRETER" ] || exec tools/setup.sh dev
	@"$${INTERPRETER:-$(BIN)/python}" -m tests.gpu.acceptance $(call option,--out,OUT) $(ARGS)

faults: setup-dev ## Strike the command with 1000 faults of all kinds and count what became of them (ARGS="--count 60 --seed 1")
	@$(TEST_ENV) $(BIN)/python -m tests.faults $(ARGS)

docker-bench: ## Build a container image with the GPU packages, and run bench in it
	@tools/docker_bench.sh $(ARGS)

test: setup-dev ## Run the tests and check their coverage (at least 90 %)
	@$(TEST_ENV) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal \
	  --cov --cov-report=term-missing:skip-covered --cov-fail-under=90 $(ARGS)

contracts: setup-dev ## Check our calls against the real onnxruntime-gpu (250 MB to fetch)
	@SCARLET_BENCH_CONTRACTS=1 $(BIN)/python -m pytest tests/bench/backends/onnxruntime/test_cuda_wheel.py $(ARGS)

lint: setup-dev ## Check style, format, types and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports

constraints: setup-dev ## Pin the packages anew, after a change in pyproject.toml (ARGS=--upgrade: newer ones)
	@tools/pins.sh $(ARGS)

clean: ## Remove .venv and caches; data and results stay
	@rm -rf .venv build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	@find bench export pipelines scarlet tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
