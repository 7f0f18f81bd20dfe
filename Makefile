# `make demo` and `make test` need Python 3.10 to 3.13 and make, and install the rest into .venv.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := $(filter-out package,$(patsubst %/py.typed,%,$(wildcard */py.typed)))  # as in setup.py

.PHONY: demo test coverage check lint types docs installs dist weights gpu-bundle clean

demo: .venv/demo
	$(BIN)/dlink-demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The same, with a table of the lines that no test runs; a sixth slower.
coverage: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --numprocesses 2 --dist loadfile

# For the daily loop: all but the modules that are slow.
check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) types

types: .venv/test
	mkdir -p build/types/dlink
	for p in $(PACKAGES); do ln -sfn ../../../$$p build/types/dlink/$$p; done
	ln -sf ../../../package/__init__.py build/types/dlink/__init__.py
	$(BIN)/mypy
	$(BIN)/mypy examples

# The site of docs/, in build/docs. A warning is an error, and so is a reference that leads nowhere.
docs: .venv/test
	$(BIN)/python -m sphinx -q -n -W --keep-going docs build/docs

# Each extra of docs/install.md, in an environment of its own: some minutes, and a package index.
installs: .venv/test
	$(BIN)/python -m tests.support.installs

# A release of what is committed, its contents checked, its wheel installed and run. Two minutes, without a network.
dist: .venv/test
	$(BIN)/python -m tests.support.dist

# A checkpoint like the embedded one, from nothing: two hours and a half on two cores. See nets/weights/README.md.
RECIPE := --width 0.25 --crop 384 --batch 8 --schedule poly --amp
weights: .venv/demo
	$(BIN)/dlink-scenes build/scenes1 --count 2000 --size 512 --seed 100000
	$(BIN)/dlink-scenes build/scenes2 --count 2400 --size 512 --seed 200000
	$(BIN)/dlink-train build/scenes1 -o build/stage1.th $(RECIPE) --epochs 20 --rate 1e-3
	$(BIN)/dlink-train build/scenes2 -o build/dlinknet34-w025.th $(RECIPE) --epochs 14 --rate 8e-4 --init build/stage1.th --half

# What a GPU host without a network lacks, in parts: make gpu-bundle CHECKPOINT=roads.th TILES=tiles/. See bench/gpu/README.md.
gpu-bundle: .venv/demo
	nice -n 19 $(BIN)/python -m dlink.bench.gpu.pack $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) \
		$(if $(TILES),--tiles $(TILES)) $(if $(ONLY),--only $(ONLY))

.venv/demo: pyproject.toml constraints.txt | .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all]'
	touch $@

.venv/test: pyproject.toml constraints.txt | .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@ .venv/demo

.venv:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build demo dist *.egg-info
