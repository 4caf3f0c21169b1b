# Each target is one line that a person could type; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 8000
# These tests count descriptors, threads and children, so they have a process to themselves.
ALONE := tests/unit/parallel
# Its libraries start threads, which would change what parallel_map does in the process of other tests.
THREADED := tests/unit/cards/test_figures.py tests/unit/ui

# If the shell turns off Python's bytecode cache, every start of a flow compiles this package again, which takes a tenth
# of a second; the tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-alone test-others test-fast fast-alone fast-others lint format changelog changelog-check release metaflow-names screenshots bench-local bench-parallel bench-resume bench-artifacts bench-s3 bench-ui bench-environments bench-kubernetes bench-wide bench-check clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed cluster ## run BigSum on Kubernetes, on a cluster that this creates (N=8000 rows)
	@eval "$$($(PYTHON) -m tests.cluster env)" && \
	  echo '$$ python examples/bigsum.py run --n $(N) --with kubernetes' && \
	  $(BIN)/python examples/bigsum.py run --n $(N) --with kubernetes && \
	  echo 'Its Jobs: eval "$$($(PYTHON) -m tests.cluster env)"; kubectl -n k8sflow get jobs,pods'

test: lint ## every test: lint, guarded speed, unit, local flows, a real cluster, AWS Batch by moto
	$(BIN)/python benchmarks/check.py --short
	@$(MAKE) --no-print-directory --jobs=2 test-alone test-others
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup --durations=15 -m 'not destructive' tests/kind
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --durations=5 tests/batch
	$(BIN)/python -m pytest --durations=5 -m destructive tests/kind

test-alone: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(ALONE)
	$(BIN)/python -m pytest -q $(THREADED)

test-others: $(VENV)/.installed
	$(BIN)/python -m pytest -q --numprocesses=2 --dist=worksteal --durations=15 tests/unit tests/flows --ignore=$(ALONE) $(THREADED:%=--ignore=%)

test-fast: $(VENV)/.installed ## the tests that need no cluster and take less than a minute
	@$(MAKE) --no-print-directory --jobs=2 lint fast-alone fast-others

fast-alone: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(ALONE) -m 'not slow'

fast-others: $(VENV)/.installed
	$(BIN)/python -m pytest -q --numprocesses=3 --dist=worksteal tests/unit tests/flows --ignore=$(ALONE) $(THREADED:%=--ignore=%) -m 'not slow and not s3'

lint: $(VENV)/.installed ## ruff, mypy, the layers and the word list
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.wording

format: $(VENV)/.installed ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

changelog: $(VENV)/.installed ## show the unreleased changes as CHANGELOG.md will have them
	@$(BIN)/towncrier build --draft --version "$$($(BIN)/python -m tools.version)"

changelog-check: $(VENV)/.installed ## check that the commits since BASE have a changelog fragment (BASE=origin/main)
	$(BIN)/towncrier check --compare-with $(or $(BASE),origin/main)

release: $(VENV)/.installed ## build and check wheel, sdist, chart and image (VERSION=x.y.z sets the version first)
	$(BIN)/python -m tools.release $(if $(VERSION),--version $(VERSION))

metaflow-names: $(VENV)-bench/.installed ## write the list of Metaflow's public names, by which tests compare ours
	$(VENV)-bench/bin/python tools/metaflow_names.py --write

screenshots: $(VENV)/.installed ## take the pictures of docs/ui.md, of runs that this starts (about two minutes)
	$(BIN)/python -m tools.screenshots

bench-local: $(VENV)-bench/.installed ## local flows against Metaflow and the bare operation (about 4 minutes)
	$(VENV)-bench/bin/python benchmarks/local_run.py

bench-parallel: $(VENV)-bench/.installed ## parallel_map against its peers and the bare operation (about 18 minutes)
	$(VENV)-bench/bin/python benchmarks/parallel_map.py --plot docs/parallel_map.png

bench-resume: $(VENV)/.installed ## resume a run of 10,000 finished tasks (half a minute)
	$(BIN)/python benchmarks/resume.py

bench-artifacts: $(VENV)-bench/.installed ## values to a folder and to S3 against Metaflow and the bare operation (about 10 minutes)
	PYTHONPATH=. $(VENV)-bench/bin/python benchmarks/artifacts.py

bench-environments: $(VENV)/.installed ## steps with packages of their own, also in pods if a cluster is named by the environment (about 3 minutes)
	$(BIN)/python benchmarks/environments.py

bench-s3: $(VENV)-bench/.installed ## the users' S3 against Metaflow's and boto3, on an S3 server of this machine (about 4 minutes)
	PYTHONPATH=. $(VENV)-bench/bin/python benchmarks/s3.py

bench-ui: $(VENV)/.installed ## the pages of runs in a browser, and the price of a card (about 2 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/ui.py

bench-kubernetes: $(VENV)-bench/.installed cluster ## flows on the test cluster against Metaflow and bare Jobs (about 20 minutes)
	eval "$$($(PYTHON) -m tests.cluster env)" && $(VENV)-bench/bin/python benchmarks/kubernetes/one_step.py
	eval "$$($(PYTHON) -m tests.cluster env)" && $(VENV)-bench/bin/python benchmarks/kubernetes/whole_runs.py

bench-wide: $(VENV)/.installed cluster ## foreaches of 5,000 and 20,000 on nodes that kwok plays, against bare Jobs (about 20 minutes)
	eval "$$($(PYTHON) -m tests.cluster env)" && $(BIN)/python benchmarks/kubernetes/wide.py

bench-check: $(VENV)/.installed ## fail if a ratio of the benchmarks leaves its range in benchmarks/ranges.yaml
	$(BIN)/python benchmarks/check.py

clean: ## remove everything that make and the tools created here, but not the cluster and its caches
	rm -rf $(VENV) $(VENV)-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A bare Debian has Python without venv.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[controller]' --group dev
	$(BIN)/python -m compileall -q k8sflow
	touch $@

$(VENV)-bench/.installed: $(VENV)/.installed
	$(BIN)/python -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-bench/bin/pip install --quiet --editable . --group bench
	touch $@

include tests/cluster/cluster.mk
