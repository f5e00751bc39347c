#!/bin/sh
# Says in one line what is missing before anything is downloaded or compiled.
python=${1:-python3}
command -v "$python" >/dev/null || { echo "inferd needs Python 3.11 or newer: apt install python3 python3-venv" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "inferd needs Python 3.11 or newer; this is $("$python" -V)" >&2; exit 1; }
"$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "inferd needs Python's venv module: apt install python3-venv" >&2; exit 1; }
command -v "${CC:-cc}" >/dev/null && command -v "${CXX:-c++}" >/dev/null || { echo "inferd compiles llama.cpp and needs a C and C++ compiler: apt install build-essential" >&2; exit 1; }
