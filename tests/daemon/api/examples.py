"""Facts, and snapshots: one with something missing wherever something may be, and one in which nothing is."""

from __future__ import annotations

import itertools
from typing import Any, get_args, get_type_hints

import msgspec

from inferd.backends.facts import LoadPlan, ModelFacts
from inferd.daemon.domain import snapshot as rows

FACTS = ModelFacts(
    backend="llama",
    path="/models/m.gguf",
    file_bytes=5000,
    architecture="llama",
    quantization="Q8_0",
    n_params=1000,
    n_layers=2,
    n_embd=64,
    n_heads=4,
    n_kv_heads=2,
    k_head_dim=16,
    v_head_dim=16,
    n_ctx_train=2048,
    n_vocab=512,
    has_chat_template=True,
)
PLAN = LoadPlan(backend="fake", path="", n_ctx=256, n_slots=1, kv_cells=256, n_threads=1)

ROWS = {it for it in vars(rows).values() if isinstance(it, type) and issubclass(it, msgspec.Struct)}
_numbers = itertools.count(1)


def made(hint: Any, name: str, *, missing: bool) -> Any:
    """A value of that type, unlike any other where it can be; with `missing` None, or nothing, where that may be."""
    inside = [part for part in get_args(hint) if part is not ...]
    if type(None) in inside:
        return None if missing else made(next(part for part in inside if part is not type(None)), name, missing=False)
    if inside:
        if missing and inside[0] not in ROWS:
            return hint()
        of = [made(part, name, missing=missing) for part in inside]
        return {of[0]: of[1]} if len(of) == 2 else tuple(of)
    if hint in ROWS:
        hints = get_type_hints(hint)
        return hint(**{name: made(hints[name], name, missing=missing) for name in hint.__struct_fields__})
    if hint is bool:
        return True
    return f"{name} {next(_numbers)}" if hint is str else hint(next(_numbers))


SPARSE: rows.Snapshot = made(rows.Snapshot, "", missing=True)
FULL: rows.Snapshot = made(rows.Snapshot, "", missing=False)
