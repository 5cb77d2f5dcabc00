# make demo    a small policy learns to search, while you watch (four minutes on two cores)
# make test    format, lint, types, tests
# make bench   performance, each figure beside its peer (ARGS: those of `searchr1 bench retrieval`)
# make base    make the shipped base policy again (twenty minutes on one core)
#
# PYTHON: any Python >= 3.11.  TORCH: what pip installs for PyTorch, for example a build for your GPU.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-opensearch check base bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(BIN)/searchr1 demo $(ARGS)

test: check
	$(BIN)/python -m pytest -q $(ARGS)

# The promises of a retriever, and the index kind, on a real OpenSearch: make test-opensearch URL=http://host:9200
test-opensearch: $(VENV)/.dev
	SEARCHR1_OPENSEARCH_URL=$(URL) $(BIN)/python -m pytest -q tests/contracts/test_retriever_contract.py -k opensearch

check: $(VENV)/.dev
	$(BIN)/ruff format --check src tests base_policy benchmarks
	$(BIN)/ruff check src tests base_policy benchmarks
	$(BIN)/mypy

base: $(VENV)/.ready
	$(BIN)/python base_policy/make.py --out src/searchr1/models/atlas-base

bench: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/searchr1 bench rollout
	$(BIN)/searchr1 bench train
	$(BIN)/searchr1 bench retrieval $(ARGS)

clean:
	rm -rf $(VENV) build

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("searchr1 needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
