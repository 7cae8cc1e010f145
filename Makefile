# Everything is set up in .venv first, with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Threads of torch would fight with those of the other process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --dist loadfile --numprocesses

.PHONY: demo serve test slow faults browser postgres styles config benchmark results lock clean

demo: $(READY) ## make a clip, process it, show what comes out
	$(BIN)/python examples/demo.py outputs/demo

serve: $(READY) ## Prefect server, deployments and worker, until Ctrl-C; PORT=4200
	$(BIN)/fer-batch serve $(if $(PORT),--port $(PORT))

test: $(READY) ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/lint-imports
	$(PYTEST) 2

slow: $(READY) ## the tests that take minutes: real servers, kills, a browser
	$(PYTEST) 3 -m slow --durations 20

faults: $(READY) ## kill workers, servers and databases ten times each, cut networks, fill disks
	KILLS=10 OMP_NUM_THREADS=1 $(BIN)/pytest -m "slow or faults" tests/test_faults.py tests/pipeline

browser: ## install the browser that slow tests play videos in; needs root on Debian
	@command -v chromium || { apt-get update && \
	  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; }

postgres: ## install the database that slow tests put under Prefect's server; needs root on Debian
	@test -d /usr/lib/postgresql || { apt-get update && \
	  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends iproute2 postgresql; }

styles: $(READY) ## make the pictures of docs/styles, which tests compare with
	$(BIN)/python -m tests.support.golden

config: $(READY) ## write configs/default.yaml from the docstrings of the settings
	$(BIN)/fer-batch config --commented > configs/default.yaml

benchmark: $(READY) ## write docs/benchmarks/<date>-<commit>-*.md
	$(BIN)/python -m benchmarks.stages
	$(BIN)/python -m benchmarks.process
	$(BIN)/python -m benchmarks.render

results: $(READY) ## train and evaluate what docs/results.md lacks, and write it; DATA holds fer2013/ and ferplus/
	$(BIN)/python -m benchmarks.results $(if $(DATA),--data $(DATA))

lock: $(READY) ## write constraints.txt from what is installed
	$(BIN)/pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
