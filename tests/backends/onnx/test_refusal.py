from __future__ import annotations

from inferd.backends.onnx.refusal import NO_MEMORY, sentence


def test_a_client_gets_the_end_of_what_the_runtime_says_without_its_paths() -> None:
    said = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : /src/onnxruntime/core/x.cc:1 Non-zero status. Status Message: "
    told = sentence(RuntimeError(f"{said}indices out of bounds, idx=5 at /home/user/model.onnx"))
    assert told == "the graph cannot be computed with these inputs: indices out of bounds, idx=5 at"
    assert sentence(RuntimeError("Failed to allocate memory for requested buffer of size 99")) == NO_MEMORY
    assert len(sentence(RuntimeError("x" * 5000))) < 400
