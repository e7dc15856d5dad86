# Every target sets up what it needs; `make help` lists them.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMG2DATASET := .venv-img2dataset
WHEELS := dist
DESCENDANTS := openmoji_color openmoji_black
STUDY_JOBS ?= $(shell nproc)
STUDY_GROUPS := floors rates screening repeated curves data_sizes confirmation examples plan
PINS := $(basename $(wildcard pins/*.dvc))
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup params repro experiments demo test coverage test-slow lint style docs wheel bench backbone hold-out archive controlnet \
	descendants study study-page publish publish-controlnet publish-descendants examples img2dataset clusters clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

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

clusters: $(IMG2DATASET)/.clusters ## Add Spark and Ray to it, for many machines (750 MB; Spark needs Java)

$(IMG2DATASET)/.clusters: requirements-img2dataset-clusters.lock $(IMG2DATASET)/.installed
	$(IMG2DATASET)/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@

params: setup ## Make params.yaml from conf/
	python -c "from dvc.utils.hydra import compose_and_dump; \
	    compose_and_dump('params.yaml', '$(abspath conf)', None, 'config', '', [])"

# DVC takes a second to find that all is in place, make takes none
$(PINS): %: %.dvc | $(STAMP)
	dvc pull --quiet $(PINS:=.dvc)
	@touch $(PINS)

repro: setup $(PINS) ## Reproduce everything: data, adapters, images, scores, table, figures
	dvc repro; code=$$?; python -m adapterbench.runs.flush || true; exit $$code

# files and their costs left out; of the scores and parameters those that differ, and two scores of every variant
experiments: setup ## Compare the experiments of `dvc exp run`: scores, size and what was changed
	dvc exp show --only-changed --drop '.*(/|image_text)|samples$$|illustrations$$' \
	    --keep '[^./]+\.(clip_i|neutral)$$'

demo: setup $(PINS) ## Try the adapters in the browser, on this machine alone
	adapterbench demo

test: setup ## Run the tests (minutes)
	python -m pytest

coverage: setup ## Run the tests and list the modules that they do not run whole
	python -m pytest --cov --cov-report=term

test-slow: setup img2dataset ## Run the long tests: full size, downloads, two whole runs (half an hour; TESTS="--minutes 10": as many as fit)
	python -m pytest -m slow -rs $(TESTS)

lint: setup ## Check style, spelling and types
	ruff check .
	ruff format --check .
	typos
	mypy
	mypy tests  # by itself: its packages have names of stages and benchmarks

style: setup ## Repair style
	ruff check --fix .
	ruff format .

docs: setup ## Build the documentation into site/, links and references checked
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

wheel: setup ## Build the package as a wheel into dist/
	python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEELS) .

bench: setup ## Measure speed and memory against other ways of doing the same work
	python benchmarks/training_step.py
	python benchmarks/sampling.py
	python benchmarks/scoring.py
	python benchmarks/encoding.py
	python benchmarks/data.py
	python benchmarks/texts.py
	for precision in fp32 bf16; do \
	    python benchmarks/training_step.py --size sd15 --batch 1 --rounds 3 --steps 1 \
	        --precision $$precision || exit 1; \
	done
	python benchmarks/pipeline.py

backbone: setup ## Train the small backbone from scratch (hours); publish it with `make publish`
	dvc --cd backbone repro report

archive: setup ## Compress the backbone's training images to take them to a machine with a GPU
	dvc --cd backbone repro archive

hold-out: setup ## Choose again which images nothing is trained on (data/splits)
	dvc --cd backbone repro hold_out
	cp backbone/held_out/emoji.json data/splits/emoji.json

controlnet: setup ## Train the ControlNet for edge maps (a quarter of an hour); publish it with `make publish-controlnet`
	dvc repro backbone
	dvc --cd backbone repro edges

publish-controlnet: setup ## Publish the trained ControlNet in this repository
	rm -rf pins/emoji_controlnet
	cp -r backbone/models/controlnet pins/emoji_controlnet
	dvc commit --quiet --force pins/emoji_controlnet.dvc
	dvc push --remote published pins/emoji_controlnet.dvc

examples: setup $(PINS) ## Run examples/ on what `make repro` left: images and the notebook in examples/out
	mkdir -p examples/out
	rm -rf examples/out/exported
	tar --extract --to-stdout --wildcards --occurrence --file data/shards/validation-00000.tar '*.png' \
		> examples/out/reference.png
	adapterbench export models/ip_adapter examples/out/exported
	python examples/plain_diffusers.py data/backbone examples/out/exported \
		examples/out/reference.png examples/out/plain_diffusers.png
	python examples/compose.py examples/out/compose.jpg
	python examples/image_prompts.py examples/out/image_prompt_options.jpg
	jupyter execute examples/adapterbench.ipynb --output=out/adapterbench

# a run computes on one core, so that its bytes do not depend on their number; STUDY_JOBS run at a time
study: setup $(PINS) ## Run the study of parameters and depth (hours; it resumes after a kill), write docs/study.md
	dvc repro prepare encode backbone neutral_evaluator
	dvc --cd study pull --quiet --allow-missing
	for group in $(STUDY_GROUPS); do \
	    dvc --cd study stage list --name-only | grep "^$$group" | \
	    OMP_NUM_THREADS=1 xargs -P $(STUDY_JOBS) -n 4 \
	    dvc --wait-for-lock --cd study repro --single-item --allow-missing || exit 1; \
	done
	$(MAKE) study-page

study-page: setup ## Build the study's page from the runs that are shared (a minute), write docs/study.md
	dvc --cd study pull --quiet --allow-missing
	dvc --cd study repro --single-item --force report
	rm -rf docs/study
	cp -r study/report/study.md study/report/study docs/

publish: setup ## Publish the trained backbone in this repository
	rm -rf pins/emoji
	cp -r backbone/models/pipeline pins/emoji
	cp -r backbone/models/image_encoder backbone/models/evaluator pins/emoji
	dvc commit --quiet --force pins/emoji.dvc
	dvc push --remote published pins/emoji.dvc
	@echo "set backbone.revision in params.yaml and conf/profile/emoji.yaml to:"
	@sed -n 's/.*md5: *//p' pins/emoji.dvc

descendants: setup ## Fine-tune the backbone to other styles (minutes each); publish them likewise
	dvc repro backbone
	dvc --cd backbone repro descendant

publish-descendants: setup ## Publish the descendants in this repository
	for name in $(DESCENDANTS); do \
	    rm -rf pins/$$name && cp -r backbone/models/$$name pins/$$name && \
	    dvc commit --quiet --force pins/$$name.dvc && \
	    dvc push --remote published pins/$$name.dvc && \
	    echo "set bases.$$name.revision in params.yaml and conf/profile/emoji.yaml to:" && \
	    sed -n 's/.*md5: *//p' pins/$$name.dvc || exit 1; \
	done

clean: ## Delete results and caches that `make repro` makes again
	rm -rf models samples illustrations results metrics data/encoded data/backbone data/bases data/shards \
	    examples/out .resume site dist build
