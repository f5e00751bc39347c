# Each target is a few lines; the README names the ones you need.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check protos bench chaos lock clean deb deb-test deb-vm-test audit

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

chaos: .venv/ready
	@$(BIN)/python -m tests.chaos

# llama.cpp is compiled here, about five minutes on two cores. For a GPU: CMAKE_ARGS=-DGGML_CUDA=on make demo
# NATIVE=0: for every processor of the x86-64-v3 level instead of the one that compiles; `make clean` comes first.
CMAKE_ARGS ?= -DLLAVA_BUILD=OFF $(if $(filter 0,$(NATIVE)),-DGGML_NATIVE=OFF)
export CMAKE_ARGS

.venv/ready: requirements-build.lock requirements.lock pyproject.toml packaging/check-tools.sh packaging/amx-flags.sh
	@sh packaging/check-tools.sh $(PYTHON)
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --require-hashes -r requirements-build.lock
	@echo "Building .venv; compiling llama.cpp takes a few minutes the first time."
	@amx=$$(sh packaging/amx-flags.sh); PATH="$(CURDIR)/$(BIN):$$PATH" CFLAGS="$$CFLAGS $$amx" CXXFLAGS="$$CXXFLAGS $$amx" \
	    $(BIN)/pip install -q --require-hashes --no-build-isolation -r requirements.lock
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@mkdir -p build/types && ln -sfn ../.. build/types/inferd
	@touch $@

deb: .venv/ready
	@$(BIN)/python packaging/deb.py

# As root: installs the package in a booted systemd of its own, and tries what a service has to do.
deb-test: deb
	@INFERD_BOOT=1 $(BIN)/python -m pytest -q -rsP tests/packaging/test_boot.py

# On a kernel of its own, in an emulated machine, which takes minutes: cgroups, Landlock, clocks.
deb-vm-test: deb
	@INFERD_VM=1 $(BIN)/python -m pytest -q -rsP tests/packaging/test_vm.py

# Known advisories of all that is installed, from PyPI; needs uv.
audit:
	@uv tool run pip-audit --strict --disable-pip --require-hashes -r requirements.lock -r requirements-build.lock

protos: .venv/ready
	@sh protos/generate.sh $(BIN)

lock:
	@uv pip compile -q --no-config --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
	    packaging/build-tools.in -o requirements-build.lock
	@uv pip compile -q --no-config --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
	    --extra dev -c requirements-build.lock pyproject.toml -o requirements.lock

clean:
	@rm -rf .venv build dist *.egg-info
