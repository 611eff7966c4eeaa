# Callboard. `make` alone lists what there is.

PYTHON ?= python3
# Processes that `make test` uses. Its tests wait more than they compute: four keep two cores busy.
WORKERS ?= 4
# Idle processes take tests from busy ones; until then tests of one file, which share servers, stay together.
SPREAD := -n $(WORKERS) --dist worksteal
# More for pytest: make test ARGS="-k lease -x"
ARGS ?=

export PYTHON
# Where it is set, each of the processes that tests and demo start compiles all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
PYTEST := $(BIN)/pytest
# Needs a control plane, so it goes with the proofs of a cluster.
ON_A_CLUSTER := tests/integration/test_cluster_control_plane.py
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## make .venv from the locks (quick when it is up to date)
	@scripts/setup.sh

.PHONY: demo
demo: setup ## run the main job on real input, with a worker killed in the middle
	$(BIN)/callboard demo $(ARGS)

.PHONY: test
test: setup ## unit, property, integration and conformance tests (< 5 minutes)
	$(PYTEST) -m "not proof" --ignore=tests/chaos --ignore=tests/cluster $(SPREAD) $(ARGS)

.PHONY: test-redis
test-redis: setup ## the integration tests once more, on the redis-server of this machine
	CALLBOARD_TEST_SERVER=redis $(PYTEST) tests/integration -m "not proof" $(SPREAD) $(ARGS)

.PHONY: proof
proof: setup ## the long tests: chaos, cluster, sentinel (< 20 minutes)
	$(PYTEST) -m proof --ignore=tests/cluster --ignore=$(ON_A_CLUSTER) $(ARGS)

.PHONY: chart
chart: setup ## the Helm chart and k8s/, rendered and checked (needs the cluster tools)
	$(PYTEST) tests/cluster/chart tests/cluster/gitops $(ARGS)

.PHONY: proof-cluster
proof-cluster: setup ## the chart on a real control plane of this machine, as root (< 25 minutes)
	$(PYTEST) tests/cluster/test_*.py $(ON_A_CLUSTER) $(ARGS)

.PHONY: cluster-tools
cluster-tools: ## build what proof-cluster runs, from source (Go 1.26, an hour, goes on where it was)
	tests/cluster/tools/build.sh .cache/cluster-tools

.PHONY: images
images: setup ## build the images with buildah and run each, confined; as root on Debian (< 8 minutes)
	scripts/images/images.sh
	$(PYTEST) tests/cluster/images $(ARGS)

.PHONY: bench
bench: setup ## measure against Dramatiq and Huey; the table goes to bench/README.md
	@test -d bench || { echo "bench: there is nothing to measure yet"; exit 1; }
	$(BIN)/python -m bench $(ARGS)

.PHONY: lint
lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: setup ## mypy, strict
	$(BIN)/mypy

.PHONY: doors
doors: setup ## import-linter: who may import whom
	@$(BIN)/lint-imports

.PHONY: check
check: lint types doors test ## everything before a commit

.PHONY: lock
lock: setup ## write requirements/*.txt from pyproject.toml (ARGS=--upgrade: newest versions)
	scripts/lock.sh $(ARGS)

.PHONY: dashboards
dashboards: setup ## write the dashboards, and the chart's copies of them and of the alerts
	$(BIN)/python -m deploy.grafana

.PHONY: k8s
k8s: setup ## write k8s/ from the chart (needs Helm, on the PATH or in CLUSTER_TOOLS)
	$(BIN)/python scripts/k8s/render.py

.PHONY: values
values: setup ## write the chart's values.schema.json and its README's table from values.yaml
	$(BIN)/python scripts/chart/pages.py

.PHONY: verify
verify: setup ## what is generated equals its source (locks, dashboards, the chart's schema)
	scripts/lock.sh --check
	$(BIN)/python -m deploy.grafana --check
	$(BIN)/python scripts/chart/pages.py --check

.PHONY: clean
clean: ## remove caches and builds (.venv stays)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
