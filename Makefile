# Nestling: five words to learn — install, check, test, demo, ui.
# PY chooses the interpreter by name or path; a .venv of another version is made anew. Nothing here needs root.
# The environment that serves models has an interpreter of its own, so that .venv can change without it.
BIN := .venv/bin
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
runs = $(firstword $(foreach py,$(1) $(wildcard $(HOME)/.pyenv/versions/*/bin/$(1)),$(if $(call version,$(py)),$(py))))
none = $(error PY=$(PY) does not run here, and another version would test something else: install it, or name one that is here)
PYTHON := $(if $(PY),$(or $(call runs,$(PY)),$(none)),$(or $(call runs,python3.11),python3))
PYTHON_VLLM := $(or $(call runs,python3.11),$(PYTHON))
STALE := $(if $(PY),$(filter-out $(call version,$(PYTHON)),$(call version,$(BIN)/python)))
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export TOKENIZERS_PARALLELISM = false
export NESTLING_ACCEPT_GEMMA_TERMS ?=

.DEFAULT_GOAL := help
HOST ?= 127.0.0.1
PORT ?= 4200

# Compiled modules are kept, also where the environment says not to: else every process compiles its libraries anew,
# which doubles the start of each flow and of each vLLM server.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install vllm tpu classifier check format test test-slow demo ui ui-down bench clean

help: ## these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.done ## base and development environment (.venv)

ifneq ($(STALE),)
.PHONY: .venv/.done
endif

.venv/.done: requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python -a -z "$(STALE)" || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -m1 '^uv==' requirements/dev.txt | cut -d' ' -f1)"
	@UV_LINK_MODE=copy $(BIN)/uv pip sync -q --python $(BIN)/python requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

vllm: .venv-vllm/.done ## the environment that serves models (.venv-vllm); never shared with .venv

# torch's CPU build: pip finds a file kept on the machine (PIP_FIND_LINKS); uv knows PyTorch's own CPU index.
.venv-vllm/.done: requirements/vllm.txt .venv/.done
	@test -x .venv-vllm/bin/python || $(PYTHON_VLLM) -m venv .venv-vllm
	@UV_LINK_MODE=copy $(BIN)/uv pip install -q --no-deps --python .venv-vllm/bin/python -r requirements/vllm.txt
	@.venv-vllm/bin/python -m pip install -q --disable-pip-version-check --no-deps torch==2.13.0+cpu 2>/dev/null || \
		$(BIN)/uv pip install -q --no-deps --torch-backend cpu --python .venv-vllm/bin/python torch==2.13.0
	@touch $@

tpu: .venv-tpu/.done ## Google's TPU compiler for `preflight` (.venv-tpu); it needs no TPU

# libtpu alone, the version that the installed JAX asks for: inside .venv it would make JAX look for chips.
.venv-tpu/.done: .venv/.done
	@test -x .venv-tpu/bin/python || $(PYTHON) -m venv .venv-tpu
	@UV_LINK_MODE=copy $(BIN)/uv pip install -q --no-deps --python .venv-tpu/bin/python "$$($(BIN)/python -c \
		'import importlib.metadata as m; print(*[r.split(";")[0] for r in m.requires("jax") if r.startswith("libtpu")])')"
	@touch $@

classifier: .venv-classifier/.done ## the environment that trains fastText classifiers (.venv-classifier); never shared with .venv

# The interpreter of .venv: a model is trained and read by the same Python.
.venv-classifier/.done: requirements/classifier.txt .venv/.done
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-classifier
	@UV_LINK_MODE=copy $(BIN)/uv pip install -q --no-deps --python .venv-classifier/bin/python -r requirements/classifier.txt
	@touch $@

check: install ## format, lint, types, import contracts, spelling
	@! git grep -nE '^(<<<<<<<|>>>>>>>) ' || { echo 'a merge was left half done: resolve these lines'; exit 1; }
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/codespell flows tasks model tests bench examples docs README.md CHANGELOG.md CONTRIBUTING.md

format: install ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Most of the time goes into compiling programs that run once: unoptimised they compute the same, by rounding.
# Files in their own order: sorted by their number of tests, the longest one would come last. One worker more than
# there are cores, because many tests wait for servers and children.
test: install vllm classifier ## the tests CI runs (CPU, under 15 minutes on 2 cores)
	XLA_FLAGS=--xla_backend_optimization_level=0 \
		$(BIN)/python -m pytest -q -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: install vllm classifier ## minutes-long proofs: kills, browser, real servers
	$(BIN)/python -m pytest -q -m slow $(ARGS)

demo: install ## the whole tiny factory: raw pages in, an evaluated chat model and its report out
	@$(MAKE) --no-print-directory vllm
	$(BIN)/python -m flows factory tiny $(ARGS)

ui: install ## the Prefect UI with every deployment, a worker and the automations; Ctrl-C stops all of it
	@$(BIN)/python -m flows.server up --host $(HOST) --port $(PORT)

ui-down: install ## stop a `make ui` that runs elsewhere
	@$(BIN)/python -m flows.server down

bench: install ## ours against the peers; each prints one JSON line last
	@for name in artifact checkpoint clean corpus convert feed train_step; do $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

clean: ## remove caches of tools (never artifacts)
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
