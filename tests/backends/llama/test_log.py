"""llama.cpp's log lines as facts."""

from __future__ import annotations

import pytest

from inferd.backends.llama.log import ERROR, INFO, LlamaLog


def test_buffer_lines_become_bytes_and_add_up() -> None:
    log = LlamaLog()
    for line in (
        "load_tensors:   CPU_Mapped model buffer size =    26.61 MiB\n",
        "llama_kv_cache:        CPU KV buffer size =     2.00 MiB\n",
        "llama_kv_cache:        CPU KV buffer size =     1.50 MiB\n",
        "sched_reserve:      CUDA0 compute buffer size =     6.00 MiB\n",
        "llama_context:        CPU  output buffer size =     0.50 MiB\n",
        "print_info: n_ctx_train           = 2048\n",
    ):
        log.on_line(INFO, line)
    assert log.buffers == {
        "CPU_Mapped model": int(26.61 * 2**20),
        "CPU KV": int(3.5 * 2**20),
        "CUDA0 compute": 6 * 2**20,
        "CPU output": 2**19,
    }


def test_devices_are_named_as_llama_cpp_names_them() -> None:
    log = LlamaLog()
    for _ in range(2):  # two models in one process
        log.on_line(INFO, "x: using device CUDA0 (NVIDIA H100) (0000:01:00.0) - 80000 MiB free\n")
    assert log.devices == ["CUDA0 (NVIDIA H100)"]


@pytest.mark.parametrize(
    ("line", "fault", "message"),
    [
        (
            "llama_model_load: error loading model: tensor 'x' data is not within the file bounds",
            "corrupt",
            "tensor 'x' data is not within the file bounds",
        ),
        (
            "llama_model_load: error loading model: unknown model architecture: 'zig'",
            "unsupported",
            "unknown model architecture: 'zig'",
        ),
        (
            "alloc_tensor_range: failed to allocate CUDA0 buffer of size 99",
            "memory",
            "failed to allocate CUDA0 buffer of size 99",
        ),
        (
            "gguf_init_from_file: failed to open GGUF file '/srv/models/a.gguf'",
            "corrupt",
            "failed to open GGUF file 'a.gguf'",
        ),
    ],
)
def test_the_first_error_says_whose_fault_it_is(line: str, fault: str, message: str) -> None:
    log = LlamaLog()
    log.on_line(ERROR, line + "\n")
    log.on_line(ERROR, "llama_model_load_from_file_impl: failed to load model\n")
    assert log.fault() == (fault, message)


def test_silence_is_a_corrupt_file() -> None:
    assert LlamaLog().fault()[0] == "corrupt"
