"""ONNX Runtime: the one room of `onnxruntime`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np

from ..engine import LoadError
from .refusal import NO_MEMORY, InputRefused, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[Any]

# What a session calls the types -> the Open Inference Protocol's names.
DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
CUDA = "CUDAExecutionProvider"
SEVERE = 3  # of its log: errors; its warnings are about the making of a graph


class Held(Protocol):
    """A tensor that belongs to the runtime, on the processor or on the session's device."""

    def numpy(self) -> Array:
        """A copy on the host, or a view where it is there already."""

    def shape(self) -> list[int]: ...


class Port(NamedTuple):
    name: str
    datatype: str  # "" where the protocol has no name for it
    axes: tuple[int | str, ...]  # a number for each fixed axis, a name, maybe "", for each free one


class Session:
    """One graph on one device. Raises LoadError.

    `providers`: names with their options, the preferred one first; only those of devices that were found here, as the
    runtime prints errors about the others.
    """

    def __init__(self, path: str, providers: Sequence[tuple[str, Mapping[str, str]]], n_threads: int) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(SEVERE)
        self._ort = ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = SEVERE
        # A plan of the tensors of each shape would hold them all a second time, beside those of other shapes (284 MB in
        # place of 142 after calls of 8 x 500 tokens), and saves no time that can be seen.
        options.enable_mem_pattern = False
        # Threads spin while they wait for each other within a call; after it they would take others' cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if providers[0][0] == CUDA:
            _preload(ort)
        try:
            self._session = ort.InferenceSession(path, options, providers=list(providers))
        except MemoryError:
            raise
        except Exception as error:  # the runtime has a class for each status and no common one
            raise _load_error(error) from None
        self.inputs = [_port(node) for node in self._session.get_inputs()]
        self.outputs = [_port(node) for node in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]
        self._cuda_id = providers[0][1].get("device_id", "0") if self.provider == CUDA else ""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], options: Any = None) -> list[Array]:
        """Outputs by name, for whole inputs; several threads may ask. Raises InputRefused, also when it was broken off.

        `options`: of `new_options`, for who may want to break it off.
        """
        try:
            return cast("list[Array]", self._session.run(list(outputs), dict(feeds), options))
        except MemoryError:
            raise InputRefused(NO_MEMORY) from None
        except Exception as error:
            print(f"run: {error}", file=sys.stderr)
            raise InputRefused(sentence(error)) from None

    def hold(self, array: Array) -> Held:
        """A tensor of the session's own, which its calls take and give without a copy."""
        return cast("Held", self._ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C")))

    def run_held(self, feeds: Mapping[str, Held], outputs: Sequence[str]) -> list[Held]:
        """Like `run`, with such tensors."""
        try:
            if self._cuda_id:
                return self._run_there(feeds, outputs)
            return cast("list[Held]", self._session.run_with_ort_values(list(outputs), dict(feeds)))
        except MemoryError:
            raise InputRefused(NO_MEMORY) from None
        except Exception as error:
            print(f"run: {error}", file=sys.stderr)
            raise InputRefused(sentence(error)) from None

    def _run_there(self, feeds: Mapping[str, Held], outputs: Sequence[str]) -> list[Held]:
        """What the call gives stays on the device: else it would come to the host, and go back with the next call."""
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cuda", int(self._cuda_id))
        self._session.run_with_iobinding(binding)
        return cast("list[Held]", binding.get_outputs())

    def new_options(self) -> Any:
        """Of one run."""
        return self._ort.RunOptions()

    def break_off(self, options: Any) -> None:
        """From another thread: the run with these options ends before its next operator."""
        options.terminate = True


def providers() -> tuple[str, list[str]]:
    """Its version and the execution providers compiled into it."""
    import onnxruntime

    return cast(str, onnxruntime.__version__), list(cast(list[str], onnxruntime.get_available_providers()))


def _preload(ort: Any) -> None:
    """pip puts NVIDIA's libraries where no loader looks; where they are not there, the system's are used."""
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it did not find
        ort.preload_dlls()


def _port(node: Any) -> Port:
    axes = tuple(axis if isinstance(axis, int) else str(axis or "") for axis in node.shape)
    return Port(node.name, DATATYPES.get(node.type, ""), axes)


def _load_error(error: Exception) -> LoadError:
    """In our own words: the runtime's name paths and its sources. They go to the log."""
    kind, text = type(error).__name__, str(error)
    print(f"load: {kind}: {text}", file=sys.stderr)
    if kind == "InvalidProtobuf":
        return LoadError("corrupt", "the file is no ONNX model")
    if "opset" in text.lower() and ("not guaranteed" in text or "under development" in text or "guarantees" in text):
        return LoadError("unsupported", "its operator set is newer than the installed ONNX Runtime knows")
    if "IR version" in text or "ir_version" in text:
        return LoadError("unsupported", "its format is newer than the installed ONNX Runtime knows")
    if kind == "NotImplemented" or "is not a registered function/op" in text or "No Op registered" in text:
        return LoadError("unsupported", "it has an operator that the installed ONNX Runtime does not know")
    if "bad_alloc" in text or "Failed to allocate memory" in text:
        return LoadError("memory", "not enough memory to load the model")
    if kind in ("InvalidGraph", "Fail", "InvalidArgument", "RuntimeException"):
        return LoadError("corrupt", "its graph is not valid")
    return LoadError("error", "the runtime cannot load it")


def dtype_of(datatype: str) -> npt.DTypeLike:
    """Of the protocol's name; BYTES are objects."""
    return _DTYPES[datatype]


_DTYPES: dict[str, npt.DTypeLike] = {
    "FP32": np.float32,
    "FP16": np.float16,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}
DTYPE_NAMES: dict[Any, str] = {np.dtype(dtype): name for name, dtype in _DTYPES.items() if name != "BYTES"}
