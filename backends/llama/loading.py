"""From a plan to a loaded engine: the model, its context, and the rules for its cells."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ..engine import LoadError
from .adapters import Adapters
from .binding import BindingError, Context, ContextShape, Model, log
from .cells import TEMP, Cells, ExactCells
from .devices import build_facts
from .drafter import Drafter
from .embedding import EmbeddingEngine, open_context
from .engine import LlamaEngine
from .memory import Memory
from .pace import BLOCK, Pace
from .pair import draft_plan
from .snapshots import Snapshots, StateMemory
from .store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..facts import LoadPlan
    from ..shelf import Shelf
    from .vocab import Vocab

FLOAT_FILE_TYPES = ("0", "1", "32")  # llama_ftype: all F32, mostly F16, mostly BF16
LARGE_PART = 0.9  # of what is loaded, where a small model is loaded, too


def load(
    plan: LoadPlan, progress: Callable[[float], None], shelf: Shelf | None = None
) -> LlamaEngine | EmbeddingEngine:
    """`shelf`: what is kept in host RAM is the daemon's, too. Raises LoadError."""
    return load_embedder(plan, progress) if plan.pooling else load_generator(plan, progress, shelf)


def load_generator(plan: LoadPlan, progress: Callable[[float], None], shelf: Shelf | None = None) -> LlamaEngine:
    """A model that writes text. Raises LoadError."""
    start_s = time.perf_counter()
    exact = plan.numerics == "exact"
    if exact and plan.n_gpu_layers:
        raise LoadError("unsupported", "numerics = exact is the processor's alone: set gpu_layers = 0")
    if exact and (plan.kv_layout != "unified" or plan.flash_attention is False):
        raise LoadError("unsupported", "numerics = exact needs kv_layout = unified and flash attention")
    unified = plan.kv_layout == "unified"
    with _load_errors():
        model = _model(plan, progress if plan.draft is None else lambda fraction: progress(LARGE_PART * fraction))
        if exact and not model.keeps_all_cells:
            raise LoadError("unsupported", "numerics = exact needs a model without sliding window or recurrent state")
        if exact and model.meta("general.file_type") in FLOAT_FILE_TYPES:  # their sums go by the number of rows
            raise LoadError("unsupported", "numerics = exact needs quantized weights")
        if model.is_recurrent:  # what was guessed wrong could not be taken back
            plan = msgspec.structs.replace(plan, n_draft=0, draft=None)
        context = Context(
            model,
            ContextShape(
                n_cells=plan.kv_cells,
                n_seqs=plan.n_slots + unified,  # a split cache has no cells to spare for a scratch sequence
                n_outputs=plan.n_slots + unified + plan.n_draft,
                n_ubatch=max(plan.n_ubatch, BLOCK, plan.n_slots + plan.n_draft),
                n_threads=max(1, plan.n_threads // 4),
                kv_type=plan.kv_type,
                unified=unified,
                flash_attention=True if exact else plan.flash_attention,
            ),
        )
        adapters = _adapters(plan, model, context)
    _warm_up(context, model.vocab)
    context.use_threads(plan.n_threads)
    pace = Pace()
    memory = _memory(plan, model, context, pace, shelf)
    drafter = None if plan.draft is None else _drafter(plan, model, progress)
    load_ms = (time.perf_counter() - start_s) * 1e3
    engine = LlamaEngine(plan, model, context, memory, pace, adapters, load_ms, drafter)
    if memory.store.limit_bytes:
        engine.ready = msgspec.structs.replace(engine.ready, fingerprint=_fingerprint(plan))
    return engine


def load_embedder(plan: LoadPlan, progress: Callable[[float], None]) -> EmbeddingEngine:
    """A model with a pooling. Raises LoadError."""
    start_s = time.perf_counter()
    with _load_errors():
        model = _model(plan, progress)
        context = open_context(plan, model)
    _warm_up(context, model.vocab)
    context.use_threads(plan.n_threads)
    return EmbeddingEngine(plan, model, context, (time.perf_counter() - start_s) * 1e3)


def _model(plan: LoadPlan, progress: Callable[[float], None]) -> Model:
    model = Model(
        plan.path,
        n_gpu_layers=plan.n_gpu_layers,
        devices=plan.device_names,
        tensor_split=plan.tensor_split,
        use_mmap=plan.use_mmap,
        plain_kernels=plan.numerics == "exact",
        progress=progress,
    )
    if not model.is_generative or model.is_diffusion:
        raise LoadError("unsupported", "only models that write token by token, embed or rank are served")
    return model


@contextmanager
def _load_errors() -> Iterator[None]:
    """What llama.cpp refuses, in the words of a load."""
    try:
        yield
    except BindingError as error:
        raise LoadError(error.fault, str(error)) from error
    except LookupError as error:
        raise LoadError("unsupported", str(error)) from error


def _drafter(plan: LoadPlan, large: Model, progress: Callable[[float], None]) -> Drafter:
    """The small model that guesses for the large one. Raises LoadError."""
    small = draft_plan(plan)
    try:
        model = Model(
            small.path,
            n_gpu_layers=small.n_gpu_layers,
            devices=small.device_names,
            tensor_split=small.tensor_split,
            use_mmap=small.use_mmap,
            progress=lambda fraction: progress(LARGE_PART + (1 - LARGE_PART) * fraction),
        )
        if not model.is_generative or model.is_recurrent:
            raise LoadError("unsupported", "draft_model: only models that generate text and can go back are of use")
        if difference := large.vocab.difference(model.vocab):
            raise LoadError("unsupported", f"draft_model: its vocabulary is not the model's: {difference}")
        context = Context(
            model,
            ContextShape(
                n_cells=small.kv_cells,
                n_seqs=small.n_slots,
                n_outputs=small.n_slots,
                n_ubatch=max(small.n_ubatch, BLOCK, small.n_slots),
                n_threads=max(1, small.n_threads // 4),
                kv_type=small.kv_type,
                unified=True,
                flash_attention=small.flash_attention,
            ),
        )
    except BindingError as error:
        raise LoadError(error.fault, f"draft_model: {error}") from error
    _warm_up(context, model.vocab)
    context.use_threads(small.n_threads)
    return Drafter(model, context, large.vocab)


def _adapters(plan: LoadPlan, model: Model, context: Context) -> Adapters:
    handles = {}
    for adapter in plan.adapters:
        try:
            handles[adapter.name] = model.load_adapter(adapter.path)
        except BindingError as error:
            raise LoadError(error.fault, f"adapter {adapter.name!r}: {error}") from error
    return Adapters(context, handles, {adapter.name: adapter.version for adapter in plan.adapters})


def _fingerprint(plan: LoadPlan) -> str:
    """What is computed here fits wherever this is the same, and the model's file: its bytes mean the same there."""
    facts = build_facts()
    exact = plan.n_threads if plan.numerics == "exact" else 0  # attention adds up what each of them found
    where = (plan.n_gpu_layers, *log.devices, *plan.tensor_split) if plan.n_gpu_layers else ("CPU",)
    how = (plan.kv_type, plan.kv_layout, plan.flash_attention, plan.numerics, plan.n_ctx, plan.kv_cells, exact, BLOCK)
    return repr((facts["version"], facts["system_info"], where, how))


def _memory(plan: LoadPlan, model: Model, context: Context, pace: Pace, shelf: Shelf | None) -> Memory:
    """What is idle goes to the store at once where that is the same RAM: every cell in use makes attention slower."""
    exact = plan.numerics == "exact"
    keeps = plan.prefix_caching and plan.kv_layout == "unified" and model.keeps_all_cells
    store = Store(plan.cache_bytes if keeps else 0, shelf)
    cells = ExactCells(context) if exact else Cells(context)
    kept = range(context.n_seqs, TEMP) if keeps and not exact else ()
    max_idle_cells = context.n_cells if plan.n_gpu_layers or not store.limit_bytes else 0
    if model.is_recurrent and plan.prefix_caching and plan.cache_bytes:
        snapshots = Snapshots(plan.cache_bytes)
        return StateMemory(context, cells, (), store, pace, max_idle_cells=0, exact=False, snapshots=snapshots)
    return Memory(context, cells, kept, store, pace, max_idle_cells=max_idle_cells, exact=exact)


def _warm_up(context: Context, vocab: Vocab) -> None:
    """Touch every weight once, so that the first request does not wait for the disk; others may want the cores now."""
    _ = vocab.eog  # every token is asked for its part
    context.batch.clear()
    context.batch.add(0, 0, [0], n_wanted=1)
    context.decode()
    context.seq_rm(0)
