# The one task runner. Every target sets up what it needs; nothing has to be installed first but
# Python >= 3.11 with venv and pip, on Linux or macOS.

VENV ?= .venv
BENCH_VENV ?= .venv-bench
PY := $(VENV)/bin/python
# The JupyterLab extension is built once, when something that needs it runs; Node is a wheel in the environment.
JLPM := cd labextension && PATH="$(abspath $(VENV))/bin:$$PATH" jlpm
NODE_MODULES := labextension/node_modules/.yarn-state.yml
EXTENSION := mce_notebook/labextension/package.json
SCRIPTS = $(shell find labextension/src labextension/style labextension/schema labextension/scripts -type f) \
	$(wildcard labextension/*.json)
READY := $(VENV)/.ready
# A candidate counts only if it runs and can make an environment: version managers leave shims that do neither.
CHECK := import sys, venv, ensurepip; raise SystemExit(sys.version_info < (3, 11))
# Extra arguments, as in `make test ARGS="tests/declare -x"`.
ARGS ?=

.PHONY: help demo test nightly notebooks lab extension screenshots binder binder-link lint format docs bench lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       run a reduced notebook for real and say where its dataset and picture are"
	@echo "make test       run the tests"
	@echo "make nightly    run the tests, the long ones included"
	@echo "make notebooks  execute every notebook, reduced"
	@echo "make lab        open JupyterLab on the notebooks"
	@echo "make extension  build the JupyterLab extension and link it into the environment"
	@echo "make screenshots  photograph JupyterLab for the README and the docs"
	@echo "make binder     build what Binder builds and run a notebook in it; make binder-link prints the link to it"
	@echo "make lint       formatting, lint, types and import order"
	@echo "make format     rewrite the sources in our format"
	@echo "make docs       check links, and that every command and option is documented"
	@echo "make bench      install the peers beside us and run the benchmarks"
	@echo "make lock       resolve the dependencies again into requirements.lock"
	@echo "make clean      remove the environments and caches"

# One recipe for both environments: $(call install,FOLDER)
define install
	@set -e; for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
		if "$$candidate" -c '$(CHECK)' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python >= 3.11 with venv and pip on PATH; install one, or say make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "Setting up $(1) with $$("$$found" --version)"; \
	"$$found" -m venv $(1)
	$(1)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	SKIP_JUPYTER_BUILDER=1 $(1)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
endef

# The stamp is touched last, so an interrupted set-up starts again.
# Without the link: through it, pip would remove and write what was built.
$(READY): requirements.lock pyproject.toml
	@rm -rf $(LINK) mce_notebook/labextension/install.json
	$(call install,$(VENV))
	@touch $@

demo: $(READY)
	$(PY) scripts/demo.py

# With ARGS, somebody wants those tests only. Most tests wait for processes, so two files of them run side by side.
test: extension
	$(if $(ARGS),,$(JLPM) test)
	$(PY) -m pytest $(if $(ARGS),$(ARGS),-n 2 --dist loadfile)

nightly: extension
	$(if $(ARGS),,$(JLPM) test)
	$(PY) -m pytest -n 2 --dist loadfile --nightly $(ARGS)

notebooks: $(READY)
	$(PY) scripts/run_notebooks.py $(ARGS)

$(NODE_MODULES): labextension/package.json labextension/yarn.lock labextension/.yarnrc.yml | $(READY)
	$(JLPM) install --immutable
	@touch $@

$(EXTENSION): $(NODE_MODULES) $(SCRIPTS)
	$(JLPM) build:prod
	@touch $@

# Linked rather than copied, so that the next build is seen at once; a link costs nothing, so it is made every time.
# The editable install may have put a folder there.
LINK = $(VENV)/share/jupyter/labextensions/mce-notebook
extension: $(EXTENSION)
	@rm -rf $(LINK)
	@mkdir -p $(dir $(LINK))
	@ln -s "$(abspath mce_notebook/labextension)" $(LINK)

lab: extension
	$(PY) -m jupyterlab --ServerApp.root_dir=notebooks $(ARGS)

screenshots: extension
	$(PY) scripts/screenshots.py $(ARGS)

binder: $(READY)
	$(PY) -m scripts.try_binder $(ARGS)

binder-link: $(READY)
	@$(PY) -m scripts.try_binder --link $(ARGS)

lint: $(READY) $(NODE_MODULES)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(JLPM) lint

format: $(READY) $(NODE_MODULES)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .
	$(JLPM) format

docs: $(READY)
	$(PY) -m pytest tests/test_docs.py $(ARGS)

# The peers get their own environment, so that they cannot move a version we are tested with.
$(BENCH_VENV)/.ready: requirements.lock pyproject.toml benchmarks/requirements.txt
	$(call install,$(BENCH_VENV))
	$(BENCH_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -r benchmarks/requirements.txt
	@touch $@

bench: $(BENCH_VENV)/.ready
	$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

# uv resolves for every platform and Python at once, which pip cannot; it is needed here only, hence not locked.
lock:
	@tool=$$(mktemp -d) && trap 'rm -rf "$$tool"' EXIT && \
	python3 -m venv "$$tool" && "$$tool/bin/python" -m pip install --disable-pip-version-check --quiet uv && \
	"$$tool/bin/uv" pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --no-config --no-emit-index-url --no-emit-find-links \
		--system-certs --upgrade --quiet --output-file requirements.lock && \
	if grep -nE '://|^-' requirements.lock; then echo "requirements.lock must name no host" >&2; exit 1; fi

clean:
	rm -rf $(VENV) $(BENCH_VENV) build dist notebooks/build labextension/node_modules labextension/lib \
		mce_notebook/labextension mce_notebook/frontends/static .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
