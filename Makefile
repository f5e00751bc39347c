# Each target is a few lines; the README names the ones you need.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check protos bench lock clean

demo: .venv/ready
	@$(BIN)/python packaging/demo.py

test: .venv/ready
	@$(BIN)/python -m pytest -q

check: .venv/ready
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/ready
	@$(BIN)/python -m tests.bench

protos: .venv/ready
	@sh protos/generate.sh $(BIN)
