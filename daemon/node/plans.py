"""What a model file and the config together make of a load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...backends.facts import LoadPlan
from ..domain.config import ModelOptions

if TYPE_CHECKING:
    from ...backends.facts import ModelFacts
    from ..domain.config import Config

DEFAULT_SLOTS = 8
DEFAULT_CONTEXT_TOKENS = 8192  # a longer context is asked for by name: KV is the scarce thing
DEFAULT_KEEP_ALIVE_S = 300.0
MAX_FULL_CONTEXTS = 4  # KV held by default, in full contexts; slots share it, and the junior parks when it is short
CELL_STEP = 256  # llama.cpp pads its contexts to this

BUNDLED = {"demo": ModelOptions(numerics="exact", keep_alive_s=DEFAULT_KEEP_ALIVE_S)}


def options_for(name: str, config: Config) -> ModelOptions:
    """The model's own options over what ships for it, over the operator's defaults."""
    merged: dict[str, object] = {}
    for layer in (config.models.defaults, BUNDLED.get(name), config.models.by_name.get(name)):
        if layer is not None:
            merged |= {key: value for key, value in msgspec.structs.asdict(layer).items() if value is not None}
    return msgspec.convert(merged, ModelOptions)


def make_plan(
    name: str, facts: ModelFacts, config: Config, default_threads: int, gpus: tuple[str, ...] = ()
) -> LoadPlan:
    """How the model is to be loaded here; `gpus` are the devices that the engine can offload to."""
    options = options_for(name, config)
    n_ctx = _cells_up(options.context_tokens or min(facts.n_ctx_train, DEFAULT_CONTEXT_TOKENS))
    slots = options.slots or DEFAULT_SLOTS
    kv_cells = _cells_up(options.kv_cells or n_ctx * min(slots, MAX_FULL_CONTEXTS))
    gpu_layers = (-1 if gpus else 0) if options.gpu_layers is None else options.gpu_layers
    return LoadPlan(
        backend="fake" if config.fake.enabled else facts.backend,
        path=facts.path,
        n_ctx=n_ctx,
        n_slots=slots,
        kv_cells=max(kv_cells, n_ctx),
        n_threads=options.threads or default_threads,
        n_ubatch=options.ubatch_tokens or 512,
        n_gpu_layers=gpu_layers,
        devices=gpus if gpu_layers else (),
        kv_type=options.kv_type or "f16",
        kv_layout=options.kv_layout or "unified",
        flash_attention=options.flash_attention,
        numerics=options.numerics or "fast",
        use_mmap=True if options.mmap is None else options.mmap,
        fake_tokens_per_s=config.fake.tokens_per_s,
        fake_prefill_tokens_per_s=config.fake.prefill_tokens_per_s,
        fake_load_s=config.fake.load_s,
    )


def keep_alive_s(name: str, config: Config) -> float:
    """Seconds of idleness after which the model is unloaded; negative is never."""
    value = options_for(name, config).keep_alive_s
    return DEFAULT_KEEP_ALIVE_S if value is None else value


def _cells_up(n_tokens: int) -> int:
    return -(-n_tokens // CELL_STEP) * CELL_STEP
