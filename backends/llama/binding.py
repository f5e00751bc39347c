"""The door to llama.cpp: model, vocabulary, context and batch over its C API, typed and narrow."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as c
import numpy as np

from .devices import offload
from .log import CONT, INFO, LlamaLog
from .vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from ..facts import Pooling
    from .log import Fault

    Logits = npt.NDArray[np.float32]

KV_TYPES = {
    "f32": c.GGML_TYPE_F32,
    "f16": c.GGML_TYPE_F16,
    "bf16": 30,
    "q8_0": c.GGML_TYPE_Q8_0,
    "q4_0": c.GGML_TYPE_Q4_0,
}
POOLINGS: dict[Pooling, int] = {"": -1, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # llama_pooling_type
LAST_SEQ = 255  # with a unified cache every id up to here can hold cells, though only n_seq_max are decoded

log = LlamaLog()
_printing = False
_muted = False  # llama.cpp calls it a failure when it is broken off


class BindingError(Exception):
    """llama.cpp refused; `fault` says whose fault it is."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class Aborted(Exception):
    """A computation was broken off because its caller asked for it; some of its rows may have KV cells."""


def _on_log(level: int, text: bytes, _: object) -> None:
    global _printing
    if _muted:
        return
    if level != CONT:
        _printing = level >= INFO
        log.on_line(level, text.decode(errors="replace"))
    if _printing:
        os.write(2, text)


_log_callback = c.llama_log_callback(_on_log)  # C keeps a bare pointer to it


class Model:
    """Weights (or, with `vocab_only`, just vocabulary and metadata) of one file. Raises BindingError, or LookupError.

    `devices` have the layers that are offloaded, by llama.cpp's names; without any, all that it finds. `tensor_split`:
    their shares.
    With `plain_kernels` a row's products do not depend on how many rows, from two on, are computed with it.
    """

    def __init__(
        self,
        path: str,
        *,
        vocab_only: bool = False,
        n_gpu_layers: int = 0,
        devices: Sequence[str] = (),
        tensor_split: Sequence[float] = (),
        use_mmap: bool = True,
        plain_kernels: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        c.llama_log_set(_log_callback, None)
        c.llama_backend_init()
        params = c.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = not plain_kernels
        if plain_kernels:
            os.environ["GGML_CPU_TILED_MM"] = "0"  # read once, at the first computation of this process
        params.load_mode = c.LLAMA_LOAD_MODE_MMAP if use_mmap else c.LLAMA_LOAD_MODE_NONE
        kept = offload(params, devices, tensor_split)
        failure: list[BaseException] = []

        def on_progress(fraction: float, _: object) -> bool:
            try:
                if progress is not None:
                    progress(fraction)
            except BaseException as error:  # must not unwind through C
                failure.append(error)
            return not failure

        callback = c.llama_progress_callback(on_progress)
        params.progress_callback = callback
        log.errors.clear()
        self._model = c.llama_model_load_from_file(os.fsencode(path), params)
        del kept  # C has read it
        if failure:
            raise failure[0]
        if not self._model:
            raise BindingError(*log.fault())
        self.vocab = Vocab(c.llama_model_get_vocab(self._model))

    @property
    def is_recurrent(self) -> bool:
        """All or some of its layers keep a state that cannot be taken back."""
        return bool(c.llama_model_is_recurrent(self._model) or c.llama_model_is_hybrid(self._model))

    @property
    def keeps_all_cells(self) -> bool:
        """False for sliding windows and recurrent states, which forget."""
        return not (c.llama_model_n_swa(self._model) or self.is_recurrent)

    @property
    def is_generative(self) -> bool:
        return bool(c.llama_model_has_decoder(self._model) and not c.llama_model_has_encoder(self._model))

    @property
    def is_diffusion(self) -> bool:
        """It writes all tokens of a text at once, over and over."""
        return bool(c.llama_model_is_diffusion(self._model))

    @property
    def n_ctx_train(self) -> int:
        return int(c.llama_model_n_ctx_train(self._model))

    @property
    def n_embd_out(self) -> int:
        """Values of an embedding."""
        return int(c.llama_model_n_embd_out(self._model))

    def meta(self, key: str) -> str:
        """What the file's header says, as text."""
        said = ctypes.create_string_buffer(64)
        c.llama_model_meta_val_str(self._model, key.encode(), said, len(said))
        return said.value.decode(errors="replace")

    def chat_template(self, name: str | None = None) -> str | None:
        raw = c.llama_model_chat_template(self._model, None if name is None else name.encode())
        return raw.decode(errors="replace") if raw else None

    def load_adapter(self, path: str) -> Any:
        """A LoRA adapter for `Context.use_adapter`; it is freed with the model. Raises BindingError."""
        log.errors.clear()
        adapter = c.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not adapter:
            raise BindingError(*log.fault())
        return adapter

    def close(self) -> None:
        c.llama_model_free(self._model)


class Batch:
    """Rows of one llama_decode: collected in lists, then handed over in arrays that are allocated once."""

    def __init__(self, n_rows_max: int) -> None:
        self.n_rows_max = n_rows_max
        self._token = np.zeros(n_rows_max, np.int32)
        self._pos = np.zeros(n_rows_max, np.int32)
        self._seq = np.zeros(n_rows_max, np.int32)
        self._wanted = np.zeros(n_rows_max, np.int8)
        n_seq_id = np.ones(n_rows_max, np.int32)
        # Row i's list of sequences is the one element at seq[i].
        seq_ids = self._seq.ctypes.data + 4 * np.arange(n_rows_max, dtype=np.uint64)
        self._keep = (n_seq_id, seq_ids)
        raw = c.llama_batch()
        raw.token = _pointer(self._token, c.llama_token)
        raw.pos = _pointer(self._pos, ctypes.c_int32)
        raw.n_seq_id = _pointer(n_seq_id, ctypes.c_int32)
        raw.seq_id = _pointer(seq_ids, ctypes.POINTER(ctypes.c_int32))
        raw.logits = _pointer(self._wanted, ctypes.c_int8)
        self.raw = raw
        self.clear()

    def clear(self) -> None:
        self._rows: tuple[list[int], ...] = [], [], [], []
        self.n_wanted = 0

    def add(self, seq: int, pos: int, tokens: Sequence[int], *, n_wanted: int) -> None:
        """Append rows of one sequence; the logits of the last `n_wanted` are kept."""
        n = len(tokens)
        its_tokens, its_positions, its_seqs, its_wanted = self._rows
        its_tokens += tokens
        its_positions += range(pos, pos + n)
        its_seqs += [seq] * n
        its_wanted += [0] * (n - n_wanted) + [1] * n_wanted
        self.n_wanted += n_wanted

    def seal(self) -> None:
        """Hand the rows to C: four copies for all of them, not four for each sequence."""
        n = self.raw.n_tokens = len(self._rows[0])
        self._token[:n], self._pos[:n], self._seq[:n], self._wanted[:n] = self._rows


def _pointer(array: npt.NDArray[Any], to: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(to))


@dataclass(frozen=True)
class ContextShape:
    """What a context is made of; see LoadPlan for the words."""

    n_cells: int
    n_seqs: int
    n_outputs: int  # rows of a batch whose logits can be wanted
    n_ubatch: int
    n_threads: int
    kv_type: str
    unified: bool
    flash_attention: bool | None
    pooling: Pooling = ""  # "": logits are wanted, no vectors


class Context:
    """The KV cells of a model and the means to compute. Raises BindingError when it cannot be made."""

    def __init__(self, model: Model, shape: ContextShape) -> None:
        params = c.llama_context_default_params()
        params.n_ctx = shape.n_cells
        params.n_batch = params.n_ubatch = shape.n_ubatch
        params.n_seq_max = shape.n_seqs
        params.n_outputs_max = shape.n_outputs  # by default room for a whole batch of logits would be reserved
        params.n_threads = params.n_threads_batch = shape.n_threads
        params.type_k = params.type_v = KV_TYPES[shape.kv_type]
        params.kv_unified = shape.unified
        params.flash_attn_type = -1 if shape.flash_attention is None else int(shape.flash_attention)
        params.no_perf = True
        params.embeddings = bool(shape.pooling)
        params.pooling_type = POOLINGS[shape.pooling]
        log.errors.clear()
        self._ctx = c.llama_init_from_model(model._model, params)
        if not self._ctx:
            raise BindingError(*log.fault())
        self._memory = c.llama_get_memory(self._ctx)
        self._n_vocab = model.vocab.n_tokens
        self._logits: Logits = np.empty((0, self._n_vocab), np.float32)
        self._logits_at = (0, 0)  # address, rows
        self.n_ctx_seq: int = c.llama_n_ctx_seq(self._ctx)
        self.n_cells: int = c.llama_n_ctx(self._ctx)
        self.n_seqs = shape.n_seqs
        self.batch = Batch(min(shape.n_ubatch, c.llama_n_batch(self._ctx)))  # never more rows than cells

    def decode(self, unwanted: Callable[[], bool] | None = None) -> bool:
        """Compute the batch; False when there are no KV cells for it (nothing changed). Raises RuntimeError else.

        `unwanted` is asked between any two operations on the CPU, hundreds of times; True raises Aborted.
        """
        self.batch.seal()
        code = c.llama_decode(self._ctx, self.batch.raw) if unwanted is None else self._decode_if_wanted(unwanted)
        if code == 2:
            raise Aborted
        if code == 0:
            c.llama_synchronize(self._ctx)  # a GPU computes on by itself, and callers measure what a call takes
        if code not in (0, 1):
            raise RuntimeError(f"llama_decode failed with {code}: {' / '.join(log.errors[-2:])}")
        return bool(code == 0)

    def _decode_if_wanted(self, unwanted: Callable[[], bool]) -> int:
        global _muted
        failure: list[BaseException] = []

        def ask(_: object) -> bool:
            global _muted
            try:
                _muted = unwanted()
            except BaseException as error:  # must not unwind through C
                failure.append(error)
                _muted = True
            return _muted

        callback = c.ggml_abort_callback(ask)
        c.llama_set_abort_callback(self._ctx, callback, None)
        code: int = c.llama_decode(self._ctx, self.batch.raw)
        c.llama_set_abort_callback(self._ctx, c.ggml_abort_callback(), None)
        _muted = False
        if failure:
            raise failure[0]
        return code

    def use_threads(self, n_threads: int) -> None:
        """From the next `decode` on."""
        c.llama_set_n_threads(self._ctx, n_threads, n_threads)

    def use_adapter(self, adapter: Any) -> None:
        """Compute with a LoRA adapter of the model from now on; None: without. A change costs a look at the graph."""
        n = int(adapter is not None)
        c.llama_set_adapters_lora(
            self._ctx, (c.llama_adapter_lora_p_ctypes * n)(*[adapter] * n), n, (ctypes.c_float * n)(*[1.0] * n)
        )

    def logits(self) -> Logits:
        """One row for each wanted row of the last batch, in order; valid and writable until the next decode."""
        pointer = c.llama_get_logits(self._ctx)
        where = ctypes.c_void_p.from_buffer(pointer).value or 0, self.batch.n_wanted
        if where != self._logits_at:  # most calls have them where the last one had
            n_bytes = self.batch.n_wanted * self._n_vocab * 4
            memory = memoryview((ctypes.c_char * n_bytes).from_address(where[0]))
            self._logits = np.frombuffer(memory, np.float32).reshape(self.batch.n_wanted, self._n_vocab)
            self._logits_at = where
        return self._logits

    def pooled(self, seq: int, n_values: int) -> Logits:
        """A copy of what the rows of one sequence in the last batch were pooled to."""
        pointer = c.llama_get_embeddings_seq(self._ctx, seq)
        if not pointer:
            raise RuntimeError(f"llama.cpp has no embedding of sequence {seq}")
        address = ctypes.addressof(pointer.contents)
        return np.frombuffer(ctypes.string_at(address, 4 * n_values), np.float32)

    def seq_rm(self, seq: int, pos: int = 0) -> None:
        """Free the cells of a sequence from `pos` on. Recurrent states can only be freed whole."""
        if not c.llama_memory_seq_rm(self._memory, seq, pos, -1):
            raise RuntimeError(f"llama.cpp did not remove sequence {seq} from position {pos} on")

    def seq_cp(self, source: int, target: int, start: int = 0, end: int = -1) -> None:
        """Let `target` share the cells of `source` in [start, end), or from `start` on; only with a unified cache."""
        c.llama_memory_seq_cp(self._memory, source, target, start, end)

    def state_get(self, seq: int) -> npt.NDArray[np.uint8]:
        """The KV of one sequence as bytes."""
        data = np.empty(c.llama_state_seq_get_size(self._ctx, seq), np.uint8)
        n = c.llama_state_seq_get_data(self._ctx, _pointer(data, ctypes.c_uint8), data.size, seq)
        return data[:n]

    def state_set(self, seq: int, data: npt.NDArray[np.uint8]) -> bool:
        """Put such bytes into `seq` (what it held is freed); False when there is no room."""
        return bool(c.llama_state_seq_set_data(self._ctx, _pointer(data, ctypes.c_uint8), data.size, seq))

    def clear(self) -> None:
        c.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        c.llama_free(self._ctx)
