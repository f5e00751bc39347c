"""What a model file is, what a load asks for, and its price in bytes per pool."""

from __future__ import annotations

from typing import Literal

import msgspec

HOST = "host"  # the pool of host RAM; device pools are named by device id ("gpu0")

Numerics = Literal["fast", "exact"]
KvLayout = Literal["unified", "split"]
KvType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
BackendName = Literal["llama", "onnx", "fake"]
# How a text becomes one vector, in llama.cpp's words; rank: one score, by a classifier head. "": it generates text.
Pooling = Literal["", "mean", "cls", "last", "rank"]
# Whether children are shut in (cage.py): as far as the kernel can, not at all, or a model is not loaded without.
Sandbox = Literal["auto", "off", "required"]
# What a model does: text goes on, or becomes a vector, a score, or logits of labels, of the whole or (tag) of each
# token; or tensors become tensors.
Task = Literal["generate", "embed", "rank", "classify", "tag", "infer"]


class CorruptModel(Exception):
    """The file is not a model that any backend here can read; the message is fit for a client."""


class TensorFacts(msgspec.Struct, frozen=True):
    """An input or output of a model, in the words of the Open Inference Protocol."""

    name: str
    datatype: str  # "FP32", "INT64", "BYTES"
    shape: tuple[int, ...] | None  # -1: any size; None: any shape


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a model file says, read without loading it."""

    backend: BackendName
    path: str
    file_bytes: int
    architecture: str
    quantization: str  # the field's name of the file type: "Q8_0", "Q4_K_M"
    n_params: int
    n_layers: int
    n_embd: int
    n_heads: int
    n_kv_heads: int
    k_head_dim: int  # elements of one key vector of one head
    v_head_dim: int
    n_ctx_train: int  # tokens
    n_vocab: int
    sliding_window: int | None = None  # tokens
    recurrent: bool = False
    pooling: Pooling = ""  # as the file says; with one the model embeds or ranks, and generates nothing
    causal: bool = True  # False: every token looks at all others, so an input is computed in one piece
    n_embd_out: int = 0  # values of an embedding
    has_chat_template: bool = False
    display_name: str | None = None  # general.name
    task: Task = "generate"  # as the file says
    normalize: bool = True  # its vectors are meant to have a length of 1
    inputs: tuple[TensorFacts, ...] = ()  # of a graph that is given tensors
    outputs: tuple[TensorFacts, ...] = ()
    labels: tuple[str, ...] = ()  # of what it classifies, by index
    batched: bool = False  # the first axis of all its tensors is free: several requests are computed in one call
    dynamic_quantization: bool = False  # scales are those of a whole call: batch mates move a result
    weights_bytes: int = 0  # in memory; 0: as many as in the file
    files: tuple[str, ...] = ()  # all that a load opens, by paths without links


class Batching(msgspec.Struct, frozen=True):
    """How requests for tensors share calls, in Triton's words; with `max_batch_size` 0 they do not."""

    max_batch_size: int = 0  # rows of a call
    preferred_batch_size: tuple[int, ...] = ()  # empty: what was measured to be best
    max_queue_delay_microseconds: int = 0  # that a request may wait for company
    preserve_ordering: bool = False  # answers come in the order of the requests


class Adapter(msgspec.Struct, frozen=True):
    """A LoRA adapter that requests may ask for by its name."""

    name: str
    path: str
    n_bytes: int  # of its matrices
    version: str  # changes with the file


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker is to load one model; the whole of what it needs to know."""

    backend: BackendName
    path: str
    n_ctx: int  # longest prompt + completion of one request, in tokens; a multiple of 256
    n_slots: int  # requests computed at the same time
    kv_cells: int  # tokens of KV for all slots together; a multiple of 256
    n_threads: int
    files: tuple[str, ...] = ()  # of the model, all that may be read; empty: its path alone
    sandbox: Sandbox = "auto"
    adapters: tuple[Adapter, ...] = ()
    n_ubatch: int = 512
    pooling: Pooling = ""  # "": generate text
    task: Task = "generate"
    batching: Batching = Batching()
    n_lanes: int = 1  # calls of a graph side by side, with a thread each, where several requests wait
    n_gpu_layers: int = 0
    devices: tuple[str, ...] = ()  # device ids this worker may use; empty means CPU only
    tensor_split: tuple[float, ...] = ()  # what each device has of the offloaded layers, of 1; empty: as much as any
    device_bytes: int = 0  # that were reserved on the first of them; 0: as many as are estimated
    device_names: tuple[str, ...] = ()  # the same as the engine calls them ("CUDA0"); empty: all that it finds
    onnx_provider: str = ""  # of ONNX Runtime, for its one device; "": the processor
    kv_type: KvType = "f16"
    kv_layout: KvLayout = "unified"
    flash_attention: bool | None = None  # None lets llama.cpp decide
    numerics: Numerics = "fast"
    n_draft: int = 0  # guessed tokens that one step may compute on top of those that are due; 0: no speculation
    draft: ModelFacts | None = None  # the smaller model that guesses, in the same process on the same devices
    prefix_caching: bool = True  # requests that begin alike share what is computed
    cache_bytes: int = 0  # of host RAM, for computed prompts whose KV cells are gone
    use_mmap: bool = True
    fake_tokens_per_s: float = 0.0  # fake backend only: 0 means as fast as it can
    fake_prefill_tokens_per_s: float = 0.0  # of prompts, which are computed one after another; 0: instantly
    fake_load_s: float = 0.0


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a load will take, by pool, and what they are for.

    `bytes_on` is what must be free for it to run well, so that is what admission reserves. Anonymous and file bytes are
    what the kernel will show of the process (RssAnon and RssFile of /proc/PID/status) once it has computed to the full;
    their sum is larger than `bytes_on["host"]` by mapped pages that are never read again, and 0 means nobody has said.
    """

    bytes_on: dict[str, int]  # pool -> bytes
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int  # graph buffers, outputs, and the worker process itself
    host_anon_bytes: int = 0
    host_file_bytes: int = 0  # at most: the kernel may take mapped pages back
    host_late_bytes: int = 0  # of the anonymous ones: resident only as far as KV cells have been used
