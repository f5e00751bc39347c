#!/bin/sh
# Writes the stubs beside the .proto files. Imports in *_pb2_grpc are made relative, since this folder is a package.
set -eu
cd "$(dirname "$0")"
bin=../$1
"$bin/python" -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy="$bin/protoc-gen-mypy" --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
    --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. inferd.proto oip.proto
for name in inferd oip; do
    sed -i "s/^import ${name}_pb2 as/from . import ${name}_pb2 as/; s/^import ${name}_pb2\$/from . import ${name}_pb2/" ${name}_pb2_grpc.py ${name}_pb2_grpc.pyi
done
# Other clients of that protocol bring messages of the same names; in a pool of our own both can live in one process.
sed -i 's/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/' oip_pb2.py
