"""From a plan to a loaded engine: a session on the plan's devices, and what the files beside the graph say of it."""

from __future__ import annotations

import re
import resource
import time
from typing import TYPE_CHECKING

from ..blob import give_back_freed_memory, keep_freed_memory
from ..engine import LoadError
from ..facts import HOST, CorruptModel
from . import folder, genai, genai_config
from .causal import CausalEngine
from .decoder import Decoder
from .engine import OnnxEngine
from .footprint import CUDA_BYTES, estimate
from .graph import read
from .header import read_facts
from .proto import BadProto
from .session import CUDA, Session
from .shape import Shape
from .texts import Texts
from .tokenizer import name_of, open_tokenizer, stream_pieces
from .trial import LENGTHS, pads_safely, reads_apart, shares_safely

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine import Engine
    from ..facts import LoadPlan, ModelFacts
    from ..shelf import Shelf
    from .causal import Writes


SLACK = 2  # times as much as a load is expected to take is still given; while it loads, weights are there twice
ANY_TOKEN = 1 << 31  # where nothing says how many there are
LOOPS = {"Loop", "Scan"}
SPARE_BYTES = 512 * 2**20


def load(plan: LoadPlan, progress: Callable[[float], None], shelf: Shelf | None = None) -> Engine:
    """Raises LoadError."""
    start_s = time.perf_counter()
    progress(0.0)
    # Only a worker, which has a shelf, is a process of its own.
    if shelf is not None:
        keep_freed_memory()
    engine = _load(plan, progress, shelf, start_s)
    if shelf is not None:
        give_back_freed_memory()  # a graph's weights are read, packed for the kernels, and freed again
    return engine


def _load(plan: LoadPlan, progress: Callable[[float], None], shelf: Shelf | None, start_s: float) -> Engine:
    """Raises LoadError."""
    try:
        facts = read_facts(plan.path)  # the file may be another one than the daemon saw
    except CorruptModel as error:
        raise LoadError("corrupt", str(error)) from None
    if shelf is not None and not plan.onnx_provider:  # a device's driver maps more than anybody uses
        _limit_memory(estimate(facts, plan).bytes_on[HOST])
    if plan.task == "generate" and genai_config.applies(plan.path):
        text = genai.GenaiDecoder(plan.path, plan.n_ctx, plan.n_threads, plan.onnx_provider)
        return _causal(plan, text, text.device, start_s)
    session = Session(plan.path, _providers(plan, facts), plan.n_threads)
    if plan.onnx_provider and session.provider != plan.onnx_provider:
        raise LoadError("unsupported", f"{plan.onnx_provider} does not load here; the worker's log says why")
    progress(0.9)
    if plan.task == "generate":
        decoder = Decoder(session, counts="GroupQueryAttention" in _ops(plan.path), n_vocab=facts.n_vocab)
        return _causal(plan, decoder, session.provider.removesuffix("ExecutionProvider"), start_s)
    texts = None
    if plan.pooling:
        texts = Texts(plan.task, plan.pooling, session.inputs, session.outputs, _pad_token(plan.path, facts.n_vocab))
    shape = Shape(session.inputs, session.outputs, plan.batching.max_batch_size)
    if plan.batching.max_batch_size > 1:
        _try(session, shape, texts, facts.dynamic_quantization)
    narrow = Session(plan.path, _providers(plan, facts), 1) if plan.n_lanes > 1 else None
    progress(1.0)
    loops = bool(LOOPS & _ops(plan.path))
    load_ms = (time.perf_counter() - start_s) * 1e3
    return OnnxEngine(plan, session, narrow, shape, texts, shelf, load_ms, loops=loops)


def _try(session: Session, shape: Shape, texts: Texts | None, dynamic: bool) -> None:
    """Who may share a call, and be filled up for it, is found out, as the names of axes only promise it."""
    shape.shares = shape.shares and shares_safely(session, dynamic)
    if shape.shares and shape.sequence and not pads_safely(session, shape, texts.pad if texts else 0, dynamic):
        shape.sequence = ""
    if texts is not None:
        texts.shares = reads_apart(session, texts, LENGTHS[:1] * 2, dynamic)
        texts.pads = texts.pads and reads_apart(session, texts, LENGTHS, dynamic)


def _limit_memory(expected_bytes: int) -> None:
    """A graph may make tensors of any size out of small ones: then its request fails, and nobody else's process."""
    with open("/proc/self/status", "rb") as file:
        used_kib = next(int(line.split()[1]) for line in file if line.startswith(b"VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used_kib * 1024 + SLACK * expected_bytes + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def _providers(plan: LoadPlan, facts: ModelFacts) -> list[tuple[str, dict[str, str]]]:
    """Only what was detected is asked for, and of a device as much memory beyond what was reserved as of the host."""
    processor: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if not plan.onnx_provider:
        return [processor]
    index = re.search(r"\d+$", plan.device_names[0] if plan.device_names else "")
    options = {"device_id": index[0] if index else "0"}
    if plan.onnx_provider == CUDA:
        reserved = plan.device_bytes or estimate(facts, plan).bytes_on[plan.devices[0]]
        options["gpu_mem_limit"] = str(SLACK * max(0, reserved - CUDA_BYTES) + SPARE_BYTES)
    elif plan.onnx_provider == "OpenVINOExecutionProvider":
        options = {"device_type": f"GPU.{options['device_id']}"}
    return [(plan.onnx_provider, options), processor]


def _causal(plan: LoadPlan, decoder: Writes, device: str, start_s: float) -> CausalEngine:
    """Raises LoadError."""
    try:
        tokenizer, eog = open_tokenizer(plan.path), _eog_tokens(plan.path)
    except CorruptModel as error:
        raise LoadError("corrupt", str(error)) from None
    load_ms = (time.perf_counter() - start_s) * 1e3
    eog = [token for token in eog if 0 <= token < (decoder.n_vocab or ANY_TOKEN)]
    names = name_of(tokenizer)
    return CausalEngine(plan, decoder, eog, lambda: stream_pieces(tokenizer), names, device, load_ms)


def _ops(path: str) -> set[str]:
    """What the graph computes with. Raises LoadError."""
    try:
        return {op for _, op in read(path).ops}
    except (BadProto, OSError):
        raise LoadError("corrupt", "the file is another one than it was a moment ago") from None


def _eog_tokens(path: str) -> list[int]:
    """Tokens that end an answer, as either file has them."""
    found: list[int] = []
    for name in ("generation_config.json", folder.CONFIG):
        said = folder.read_json(path, name).get("eos_token_id")
        found += [token for token in (said if isinstance(said, list) else [said]) if isinstance(token, int)]
    return found


def _pad_token(path: str, n_vocab: int) -> int:
    value = folder.read_json(path, folder.CONFIG).get("pad_token_id")
    return value if isinstance(value, int) and 0 <= value < (n_vocab or ANY_TOKEN) else 0
