"""What a model file and the config together make of a load."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ...backends import kinds
from ...backends.facts import Batching, LoadPlan
from ..domain.config import ModelOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...backends.facts import Adapter, ModelFacts, Pooling, Task
    from ..domain.config import Config

DEFAULT_SLOTS = 8
MAX_SLOTS = 64
TWICE_BYTES = 512 * 2**20  # weights of an ONNX model that are held twice, for calls side by side
DEFAULT_BATCH_SIZE = 32  # rows of a call at most, where the model takes several
DEFAULT_CONTEXT_TOKENS = 8192  # a longer context is asked for by name: KV is the scarce thing
DEFAULT_KEEP_ALIVE_S = 300.0
# Of what is computed in one piece: llama.cpp keeps room for a row of logits for each of its tokens, 1 MB where the
# vocabulary has 250,000 words.
DEFAULT_WHOLE_TOKENS = 2048
MAX_FULL_CONTEXTS = 4  # KV held by default, in full contexts; slots share it, and the junior parks when it is short
DEFAULT_CACHE_BYTES = 512 * 2**20  # at most, of host RAM for prompts whose KV cells are gone
STATES_KEPT = 8  # of a recurrent model, for each slot
N_DRAFT = 15  # guessed tokens of one step; with the one that is due four times four rows
CELL_STEP = 256  # llama.cpp pads its contexts to this

BUNDLED = {"demo": ModelOptions(numerics="exact", keep_alive_s=DEFAULT_KEEP_ALIVE_S)}


def options_for(name: str, config: Config) -> ModelOptions:
    """The model's own options over what ships for it, over the operator's defaults."""
    merged: dict[str, object] = {}
    for layer in (config.models.defaults, BUNDLED.get(name), config.models.by_name.get(name)):
        if layer is not None:
            merged |= {key: value for key, value in msgspec.structs.asdict(layer).items() if value is not None}
    return msgspec.convert(merged, ModelOptions)


class Gpu(NamedTuple):
    n_bytes: int  # that models may have of it
    name: str = ""  # as llama.cpp calls it
    llama: bool = True  # llama.cpp can offload to it
    onnx_provider: str = ""  # by which ONNX Runtime computes there; "": it does not


def make_plans(
    name: str,
    facts: ModelFacts,
    config: Config,
    default_threads: int,
    gpus: Mapping[str, Gpu],
    draft: ModelFacts | None = None,
    adapters: tuple[Adapter, ...] = (),
) -> list[LoadPlan]:
    """The ways in which the model may be loaded here; `gpus`: those that the engine can use, by device id.

    On any one GPU that is large enough, or else over all of them. Where not even that takes it whole, as many layers go
    to the GPUs as fit, and the processor computes the others; without GPUs, and with exact numerics, it computes all.
    """

    def over(devices: Sequence[str], n_layers: int | None = None) -> LoadPlan:
        plan = make_plan(name, facts, config, default_threads, tuple(devices), draft)
        on = [gpus[device] for device in plan.devices]
        shares = [gpu.n_bytes / sum(gpu.n_bytes for gpu in on) for gpu in on] if len(on) > 1 else []
        return msgspec.structs.replace(
            plan,
            adapters=adapters,
            n_gpu_layers=plan.n_gpu_layers if n_layers is None else n_layers,
            tensor_split=tuple(shares),
            device_names=tuple(gpu.name for gpu in on),
        )

    def fits(plan: LoadPlan) -> bool:
        return all(n <= gpus[pool].n_bytes for pool, n in kinds.footprint(facts, plan).bytes_on.items() if pool in gpus)

    options = options_for(name, config)
    if facts.backend == "onnx":
        return _onnx_plans(over, gpus) if options.gpu_layers != 0 else [over(())]
    gpus = {device: gpu for device, gpu in gpus.items() if gpu.llama}
    if not gpus or options.gpu_layers == 0 or (options.numerics == "exact" and options.gpu_layers is None):
        return [over(())]
    if whole := [plan for plan in map(over, [(gpu,) for gpu in gpus]) if fits(plan)]:
        return whole
    together = over(tuple(gpus))
    if fits(together) or options.gpu_layers is not None:
        return [together]
    n_layers = bisect_left(range(facts.n_layers + 1), True, key=lambda n: not fits(over(tuple(gpus), n + 1)))
    return [over(tuple(gpus), n_layers) if n_layers else over(())]


def _onnx_plans(over: Callable[[Sequence[str]], LoadPlan], gpus: Mapping[str, Gpu]) -> list[LoadPlan]:
    """A graph is computed on one device as a whole, or where none of them works by the processor."""
    usable = {device: gpu for device, gpu in gpus.items() if gpu.onnx_provider}
    plans = []
    for device, gpu in usable.items():
        # A provider counts its own devices. Where llama.cpp has no such number for this one, they are counted here.
        alike = [name for name, other in usable.items() if other.onnx_provider == gpu.onnx_provider]
        name = gpu.name or f"{alike.index(device)}"
        plan = over((device,))
        plans.append(msgspec.structs.replace(plan, onnx_provider=gpu.onnx_provider, device_names=(name,)))
    return [*plans, over(())]


def make_plan(
    name: str,
    facts: ModelFacts,
    config: Config,
    default_threads: int,
    gpus: tuple[str, ...] = (),
    draft: ModelFacts | None = None,
) -> LoadPlan:
    """How the model is to be loaded over these devices that the engine can offload to."""
    options = options_for(name, config)
    pooling, onnx = _pooling(facts, options), facts.backend == "onnx"
    usual = DEFAULT_CONTEXT_TOKENS if facts.causal else DEFAULT_WHOLE_TOKENS
    n_ctx = _cells_up(options.context_tokens or max(1, min(facts.n_ctx_train, usual)))
    task, batching = _task(facts, pooling), _batching(facts, options)
    slots = options.slots or min(MAX_SLOTS, max(DEFAULT_SLOTS, 2 * batching.max_batch_size))
    kv_cells = _cells_up(options.kv_cells or n_ctx * (min(slots, MAX_FULL_CONTEXTS) if task == "generate" else 1))
    n_ubatch = options.ubatch_tokens or 512
    gpu_layers = (-1 if gpus else 0) if options.gpu_layers is None else options.gpu_layers
    plan = LoadPlan(
        backend="fake" if config.fake.enabled else facts.backend,
        path=facts.path,
        files=facts.files,
        sandbox=config.workers.sandbox,
        n_ctx=n_ctx,
        n_slots=slots,
        kv_cells=max(kv_cells, n_ctx),
        n_threads=options.threads or default_threads,
        n_ubatch=n_ubatch if facts.causal else max(n_ubatch, n_ctx),
        pooling=pooling,
        task=task,
        batching=batching,
        n_lanes=_lanes(facts, task, options, default_threads, gpus),
        n_gpu_layers=gpu_layers if gpus else 0,
        devices=gpus if gpu_layers else (),
        kv_type=options.kv_type or "f16",
        kv_layout="unified" if pooling else options.kv_layout or "unified",
        flash_attention=options.flash_attention,
        numerics=options.numerics or "fast",
        n_draft=0 if options.spec_type == "none" or facts.recurrent or task != "generate" or onnx else N_DRAFT,
        draft=None if facts.recurrent or pooling or onnx or config.fake.enabled else draft,
        prefix_caching=options.prefix_caching is not False and task == "generate" and not onnx,
        use_mmap=True if options.mmap is None else options.mmap,
        fake_tokens_per_s=config.fake.tokens_per_s,
        fake_prefill_tokens_per_s=config.fake.prefill_tokens_per_s,
        fake_load_s=config.fake.load_s,
    )
    return msgspec.structs.replace(plan, cache_bytes=_cache_bytes(facts, plan, options))


def _pooling(facts: ModelFacts, options: ModelOptions) -> Pooling:
    """Only a file with a classifier head ranks, and a graph does what it was made for, whatever the operator says."""
    if options.pooling is None or facts.pooling == "rank" or facts.task == "infer":
        return facts.pooling
    if facts.backend == "onnx" and (facts.task == "generate" or options.pooling == "none"):
        return facts.pooling  # a graph either gives hidden states or logits
    return "" if options.pooling == "none" else options.pooling


def _task(facts: ModelFacts, pooling: Pooling) -> Task:
    """Of a model that can do either, what the operator made of it."""
    if facts.task != "generate" or not pooling:
        return facts.task
    return "rank" if pooling == "rank" else "embed"


def _batching(facts: ModelFacts, options: ModelOptions) -> Batching:
    """Only where the first axis of every tensor is free, whatever the operator says."""
    if not facts.batched or facts.task == "generate":
        return Batching()
    most = DEFAULT_BATCH_SIZE if options.max_batch_size is None else options.max_batch_size
    preferred = tuple(size for size in options.preferred_batch_size or () if size <= most)
    delay = options.max_queue_delay_microseconds or 0
    return Batching(most, preferred, delay, bool(options.preserve_ordering))


def _lanes(facts: ModelFacts, task: Task, options: ModelOptions, n_threads: int, gpus: Sequence[str]) -> int:
    """Calls side by side: as many as threads, unless their session would hold large weights a second time."""
    if facts.backend != "onnx" or task == "generate" or gpus or options.preserve_ordering:
        return 1
    wanted = n_threads if facts.weights_bytes <= TWICE_BYTES else 1
    return min(options.threads or n_threads, options.instances or wanted)


def _cache_bytes(facts: ModelFacts, plan: LoadPlan, options: ModelOptions) -> int:
    """By default as much as its KV cells take: a conversation of every slot outlives its cells.

    States are kept as a whole, several of each conversation.
    """
    forgets = facts.sliding_window and not facts.recurrent
    if plan.backend == "fake" or not plan.prefix_caching or plan.kv_layout != "unified" or forgets:
        return 0
    kv_bytes = kinds.footprint(facts, msgspec.structs.replace(plan, draft=None)).kv_bytes
    kv_bytes *= STATES_KEPT if facts.recurrent else 1
    return min(kv_bytes, DEFAULT_CACHE_BYTES) if options.cache_bytes is None else options.cache_bytes


def keep_alive_s(name: str, config: Config) -> float:
    """Seconds of idleness after which the model is unloaded; negative is never."""
    value = options_for(name, config).keep_alive_s
    return DEFAULT_KEEP_ALIVE_S if value is None else value


def _cells_up(n_tokens: int) -> int:
    return -(-n_tokens // CELL_STEP) * CELL_STEP
