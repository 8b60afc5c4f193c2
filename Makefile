# Gray's commands. Each sets itself up: a machine needs Go, Python 3.9 or later with venv, and make.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q
CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/tools
BINARY := python/ray/_bin/ray
SEEDS ?= 200
FUZZTIME ?= 60s
ARCHS ?= amd64 arm64
HOST_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
ARGS ?=
# Ray's own tests, to run against this checkout; see `make conformance`.
CONFORMANCE ?= ../shared/conformance

GOLANGCI_LINT := v2.15.0
GOFUMPT := v0.12.0

GO_SOURCES := go.mod $(wildcard go.sum) $(wildcard *.go) python/ray/_version.py \
	$(shell find cmd deploy internal ray -type f ! -name '*_test.go' ! -path '*/testdata/*' 2>/dev/null)
PY_SOURCES := $(shell find python/ray -name __pycache__ -prune -o -name _bin -prune -o -print)
PACKAGING := $(wildcard packaging/*.py) pyproject.toml LICENSE README.md

# What Go tests run Python with, so they find the packages that .venv has.
GO_TEST := GRAY_PYTHON=$(PY) go test
PYTEST := $(PY) -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up: stamps in .venv say what has been done ---

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.requirements: $(VENV)/.made python/requirements-dev.txt
	$(PIP) install -r python/requirements-dev.txt
	@touch $@

$(BINARY): $(GO_SOURCES) packaging/graywheel.py
	$(PYTHON) packaging/graywheel.py --binary
	@touch $@

# The wheel as a user installs it. After `make dev`, .venv points at this checkout instead and only the binary is built.
$(VENV)/.installed: $(VENV)/.requirements $(BINARY) $(PY_SOURCES) $(PACKAGING)
	@if [ -e $(VENV)/.editable ]; then :; else \
	rm -rf $(CACHE)/wheel && $(PY) packaging/graywheel.py --out $(CACHE)/wheel && \
	$(PIP) install --force-reinstall --no-deps $(CACHE)/wheel/*.whl; fi
	@touch $@

.PHONY: build
build: $(VENV)/.installed ## make .venv with the wheel in it: .venv/bin/python, .venv/bin/ray

.PHONY: dev
dev: $(VENV)/.requirements ## like build, but .venv uses the Python files of this checkout
	@touch $(VENV)/.editable
	$(PIP) install --no-deps --no-build-isolation --force-reinstall -e .
	@touch $(BINARY) $(VENV)/.installed

.PHONY: demo
demo: build ## start four nodes on this machine, run examples/hop.py on them, stop them
	@$(PY) examples/demo.py

# --- tests ---

.PHONY: test
test: build ## everything: vet, ruff, Go tests, a short simulation, Python tests; under 15 minutes
	go vet ./...
	$(PY) -m ruff check .
	$(GO_TEST) ./...
	$(PYTEST) -m 'not soak' --durations=15 --durations-min=5

.PHONY: ci
ci: build ## what .ci/run runs: `make test`, after Ray's own tests and a real Kubernetes where they are at hand
	@if [ -e $(CONFORMANCE)/run.py ]; then $(MAKE) --no-print-directory conformance; \
	else echo "no $(CONFORMANCE): Ray's own tests are left out"; fi
	@$(MAKE) --no-print-directory k8s-ci
	@$(MAKE) --no-print-directory test

.PHONY: quick
quick: build ## the part that takes minutes: the core, and Python tests that are not slow
	$(GO_TEST) -short . ./internal/core/... ./internal/wire/... ./internal/lint/...
	$(PYTEST) -m 'not slow and not soak' python/tests

.PHONY: race
race: build ## Go tests under the race detector
	CGO_ENABLED=1 $(GO_TEST) -race ./...

.PHONY: py
py: build ## Python tests only; ARGS='-k name' chooses
	$(PYTEST) -m 'not soak' $(ARGS)

.PHONY: sim
sim: ## simulated clusters; SEEDS=200 of them
	go test -count=1 -timeout 60m ./internal/sim/ -args -seeds=$(SEEDS)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME=60s
	@for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "== $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

.PHONY: pythons
pythons: $(VENV)/.made ## Python tests with the wheel under each of Python 3.9 to 3.13 that is here; ARGS='-k name' chooses
	$(PY) test/pythons.py --venvs $(CACHE)/venvs -- $(ARGS)

.PHONY: soak
soak: build ## the long tests: deep recursion, many tasks, kills
	$(PYTEST) -m soak -o faulthandler_timeout=1800 --durations=10 $(ARGS)

.PHONY: chaos
chaos: build ## kill actors, daemons and drivers at random for CHAOS_SECONDS=600; CHAOS_SEED replays a run's choices
	$(PY) test/chaos/chaos.py --binary $(BINARY)

.PHONY: metamorphic
metamorphic: build ## random programs in the simulator, on one node, on three, and on three that stand still at times; SEEDS=200 of them
	$(PY) test/metamorphic/scripts.py 1 $(SEEDS) > $(CACHE)/scripts.jsonl
	go test -count=1 ./internal/sim/ -run TestScripts -args -scripts=$(CACHE)/scripts.jsonl
	$(PY) test/metamorphic/sites.py --binary $(BINARY) --seeds $(SEEDS) $(ARGS)

$(VENV)/.conformance: $(VENV)/.requirements python/requirements-conformance.txt
	$(PIP) install -r python/requirements-conformance.txt
	@touch $@

.PHONY: conformance
conformance: build $(VENV)/.conformance ## Ray's own tests (CONFORMANCE=folder), of the areas that are covered
	$(PY) test/conformance.py --kit $(CONFORMANCE) --python $(PY) --out $(CACHE)/conformance.json $(ARGS)

# --- checks ---

$(TOOLS)/golangci-lint-$(GOLANGCI_LINT):
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	mv $(TOOLS)/golangci-lint $@

$(TOOLS)/gofumpt-$(GOFUMPT):
	GOBIN=$(TOOLS) go install mvdan.cc/gofumpt@$(GOFUMPT)
	mv $(TOOLS)/gofumpt $@

.PHONY: lint
lint: $(VENV)/.requirements $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) $(TOOLS)/gofumpt-$(GOFUMPT) ## golangci-lint, go vet, gofumpt, ruff
	go vet ./...
	$(TOOLS)/golangci-lint-$(GOLANGCI_LINT) run ./...
	@bad=$$($(TOOLS)/gofumpt-$(GOFUMPT) -l $$(git ls-files '*.go')); \
	if [ -n "$$bad" ]; then echo "not formatted; run make fmt:"; echo "$$bad"; exit 1; fi
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

.PHONY: fmt
fmt: $(VENV)/.requirements $(TOOLS)/gofumpt-$(GOFUMPT) ## format Go and Python
	$(TOOLS)/gofumpt-$(GOFUMPT) -w $$(git ls-files '*.go')
	$(PY) -m ruff check --fix --select I .
	$(PY) -m ruff format .

# --- what is handed out ---

.PHONY: wheel
wheel: $(VENV)/.requirements ## static wheels for x86_64 and arm64, in dist/
	$(PY) packaging/graywheel.py --out dist --arch $(ARCHS)

# Images are packed from this wheel.
$(CACHE)/image-wheel/.made: $(VENV)/.requirements $(GO_SOURCES) $(PY_SOURCES) $(PACKAGING)
	@if [ "$$(id -u)" = 0 ] && ! command -v mmdebstrap >/dev/null; then \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y mmdebstrap >/dev/null; fi
	rm -rf $(CACHE)/image-wheel
	$(PY) packaging/graywheel.py --out $(CACHE)/image-wheel --arch $(HOST_ARCH)
	@touch $@

IMAGE = $(PY) packaging/image.py --wheel $(CACHE)/image-wheel/ray-*.whl --out $@
EXAMPLES := $(wildcard examples/kubernetes/*)

dist/gray-image.tar: $(CACHE)/image-wheel/.made packaging/image_tar.sh
	$(IMAGE) $(IMAGE_ARGS)

dist/gray-notebook.tar: $(CACHE)/image-wheel/.made packaging/image_tar.sh $(EXAMPLES)
	$(IMAGE) --tag gray:notebook --notebook

dist/gray-torch.tar: $(CACHE)/image-wheel/.made packaging/image_tar.sh $(EXAMPLES)
	$(IMAGE) --tag gray:torch --notebook --torch

.PHONY: image
image: dist/gray-image.tar ## the container image dist/gray-image.tar (gray:local), as root; IMAGE_ARGS="--python 3.12"

.PHONY: image-notebook
image-notebook: dist/gray-notebook.tar ## dist/gray-notebook.tar (gray:notebook): the same with JupyterLab, matplotlib and the examples

.PHONY: image-torch
image-torch: dist/gray-torch.tar ## dist/gray-torch.tar (gray:torch): the same with torch for CPUs, too

.PHONY: k8s-demo
k8s-demo: dist/gray-image.tar ## a student's cluster on a Kubernetes of three nodes on this machine; as root, and slow the first time
	$(PY) test/kubernetes/demo.py

.PHONY: k8s-test
k8s-test: dist/gray-image.tar dist/gray-notebook.tar ## tests on a real Kubernetes, made for them on this machine, as root; ARGS='-k name' chooses
	GRAY_KUBERNETES=1 $(PYTEST) -o faulthandler_timeout=600 test/kubernetes $(ARGS)

# Alone: building Kubernetes and its control plane want the cores for themselves, and its tests have times in them.
.PHONY: k8s-ci
k8s-ci: build ## k8s-demo and the tests of who may join, if this machine can have a Kubernetes; says why if not
	@if why=$$(test/kubernetes/local/k8s-possible); then \
	$(MAKE) --no-print-directory k8s-demo && $(MAKE) --no-print-directory k8s-test ARGS='-k test_identity'; \
	else echo "no Kubernetes: $$why; its demo and tests are skipped"; fi

.PHONY: k8s-bench
k8s-bench: dist/gray-image.tar ## measure the steps of k8s-demo and the pods, for bench/FIGURES.md; as root
	$(PY) bench/kubernetes.py $(ARGS)

RAY_VENV := $(CACHE)/ray-2.60.0
$(RAY_VENV)/.made:
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip --disable-pip-version-check -q install 'ray[default]==2.60.0' numpy psutil
	@touch $@

.PHONY: bench
bench: build $(RAY_VENV)/.made ## measure Gray beside Ray 2.60.0 and renew bench/FIGURES.md; ARGS='--only "tasks sync"'
	$(PY) bench/run.py --gray $(PY) --ray $(RAY_VENV)/bin/python --out bench/FIGURES.md $(ARGS)

.PHONY: oracle
oracle: $(VENV)/.requirements $(RAY_VENV)/.made ## the same random programs on Ray 2.60.0: is their model right? ARGS='--seeds 40'
	$(PY) test/metamorphic/sites.py --ray $(RAY_VENV)/bin/python $(ARGS)

.PHONY: clean
clean: ## remove what the targets made, but for the caches of downloaded tools
	rm -rf $(VENV) dist python/ray/_bin $(CACHE)/wheel $(CACHE)/conformance.json
	find python test bench examples packaging -name __pycache__ -type d -prune -exec rm -rf {} +
