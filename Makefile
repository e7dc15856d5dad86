# Every target sets up what it needs; `make help` lists them.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMG2DATASET := .venv-img2dataset
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro demo test test-slow lint style bench backbone publish img2dataset clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## Make the virtual environment from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

img2dataset: $(IMG2DATASET)/.installed ## Make the environment that `data=cc3m_urls` downloads with

# its pins do not fit requirements.lock
$(IMG2DATASET)/.installed: requirements-img2dataset.lock
	python3 -m venv $(IMG2DATASET)
	$(IMG2DATASET)/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@

repro: setup ## Reproduce everything: data, adapters, pictures, scores, table, figures
	dvc repro

demo: setup ## Try the adapters in the browser, on this machine alone
	adapterbench demo

test: setup ## Run the tests (minutes)
	python -m pytest

test-slow: setup img2dataset ## Run the long tests too
	python -m pytest -m "slow or not slow"

lint: setup ## Check style and types
	ruff check .
	ruff format --check .
	mypy

style: setup ## Repair style
	ruff check --fix .
	ruff format .

bench: setup ## Measure speed and memory against other ways of doing the same work
	python benchmarks/training_step.py
	python benchmarks/pipeline.py

backbone: setup ## Train the small backbone from scratch (hours); publish it with `make publish`
	dvc repro backbone/dvc.yaml

publish: setup ## Publish the trained backbone in this repository
	rm -rf backbone/emoji
	cp -r backbone/models/pipeline backbone/emoji
	cp -r backbone/models/image_encoder backbone/models/evaluator backbone/emoji
	dvc commit --quiet --force backbone/emoji.dvc
	dvc push --remote published backbone/emoji.dvc
	@echo "set backbone.revision in params.yaml and conf/backbone/emoji.yaml to:"
	@sed -n 's/.*md5: *//p' backbone/emoji.dvc

clean: ## Delete results and caches that `make repro` makes again
	rm -rf models samples results metrics data/encoded data/backbone data/shards .resume
