# make test   makes a virtual environment in .venv, installs what the project needs, and runs all checks and tests
# make demo   renders a world, trains on it, tests, and prints how far it comes: 10 minutes on 2 cores (STEPS=n: longer)
# make demo-video   the same for one's own video: an mp4 of the world in, depth and trajectory out (STEPS=n: longer)
# make weights   trains the networks of weights/world.safetensors on a synthetic world again: about two hours
# make venv   only makes the environment
# make clean  removes it, and what the tools left

PYTHON ?= python3
BIN := .venv/bin

.PHONY: test demo demo-video weights venv clean

test: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/pytest -n 2 --dist worksteal --durations=10

demo: .venv/runtime
	$(BIN)/python demo.py $(if $(STEPS),--steps $(STEPS))

demo-video: .venv/runtime
	$(BIN)/python demo.py --video $(if $(STEPS),--steps $(STEPS))

weights: .venv/runtime
	$(BIN)/python weights/make_weights.py

venv: .venv/installed

.venv/runtime: requirements.txt
	@echo "making the environment .venv: PyTorch and what it needs, some minutes and 5 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

.venv/installed: .venv/runtime requirements-dev.txt requirements-timm.txt requirements-shards.txt
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
