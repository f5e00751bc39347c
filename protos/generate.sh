#!/bin/sh
# Writes the stubs beside inferd.proto. The import in *_pb2_grpc is made relative, since this folder is a package.
set -eu
cd "$(dirname "$0")"
bin=../$1
"$bin/python" -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy="$bin/protoc-gen-mypy" --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
    --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. inferd.proto
sed -i 's/^import inferd_pb2 as/from . import inferd_pb2 as/; s/^import inferd_pb2$/from . import inferd_pb2/' inferd_pb2_grpc.py inferd_pb2_grpc.pyi
