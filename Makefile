# make demo, make test: all they need is Python 3.11 or newer. Everything goes into .venv.
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu make demo     a build of torch of your choice (this one: CPU only, smaller)
#   PYTHON=/path/to/python make test                               another Python

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$python" && break; done)
TORCH := torch==2.13.0
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OUT := out

# The demonstration: the bundled model, three prompts, our methods beside transformers.
METHODS := plain,prompt_lookup,token_recycling,speculative_sampling
COMPARE = $(BIN)/treewright compare - --methods $(METHODS) --with draft=default-draft --set token_recycling.nodes=$(NODES) \
	--against transformers --max-new-tokens $(TOKENS)
NODES := 24
TOKENS := 128
STORY := Once upon a time there was a little girl named Lily. One day
CODE := def read_lines(path):\n    """Return the lines of a text file."""\n
SQL := -- Show the name and age of every singer older than 30\nSELECT

.PHONY: help setup demo test lint page clean

help:
	@echo "make demo    set up .venv, then decode three prompts with several methods, beside transformers"
	@echo "make test    set up .venv, then run the default tests"
	@echo "make lint    check style, types and the page of methods"
	@echo "make page    write docs/methods.md from the method files"
	@echo "make clean   remove .venv and out"

setup: $(INSTALLED)

# torch comes first and alone, so that TORCH_INDEX decides its build; constraints.txt fixes everything else.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer was found; install one, or say make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(INSTALLED)
	@mkdir -p $(OUT)
	@echo "== A story" && printf %b '$(STORY)' | $(COMPARE) --plot $(OUT)/story.png
	@echo && echo "== Python" && printf %b '$(CODE)' | $(COMPARE) --plot $(OUT)/python.png
	@echo && echo "== SQL" && printf %b '$(SQL)' | $(COMPARE) --plot $(OUT)/sql.png
	@echo && echo "== How the story was decoded" && printf %b '$(STORY)' | $(BIN)/treewright generate - --method token_recycling \
		--set nodes=$(NODES) --max-new-tokens $(TOKENS) --trace $(OUT)/demo.json > $(OUT)/demo.txt
	@$(BIN)/treewright plot $(OUT)/demo.json -o $(OUT)/demo.png

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/treewright methods --markdown | diff docs/methods.md - || { echo "run make page" >&2; exit 1; }

page: $(INSTALLED)
	$(BIN)/treewright methods --markdown > docs/methods.md

clean:
	rm -rf $(VENV) $(OUT)
