"""Facts and a snapshot, with something missing wherever something may be."""

from __future__ import annotations

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

MODEL_ROW = rows.ModelRow(
    name="m", state="ready", backend="llama", pid=None, devices=("cpu",), bytes=1, slots=2, running=1, waiting=0,
    pinned=False, load_progress=1.0, idle_s=None, rss_bytes=None, context_tokens=3, kv_cells=4, kv_cells_used=5,
    kv_cells_kept=6, cache_bytes=7,
    tokens_per_s=6.0, error="", estimate_error=None,
)  # fmt: skip
REQUEST_ROW = rows.RequestRow("r", "m", "batch", "t", "queued", "slot", None, 0, 0.0, 1.0, None)
DEVICE_ROW = rows.DeviceRow("gpu0", "gpu", "G", None, None, 0, None, None, None, "lost")
HOST_ROW = rows.HostRow(10, 5, 1, 2, None)
RATES_ROW = rows.RatesRow(0.0, 1.0, 2, 3, None, 4.0, 5, 4, 6, 7, 8, 9, 10, 11, 12, 13, {"preempted": 14})
SNAPSHOT = rows.Snapshot(
    7, "1.0", 3.0, (MODEL_ROW,), (REQUEST_ROW,), (DEVICE_ROW,), RATES_ROW, HOST_ROW,
    (rows.WarningRow("c", "error", "m", "r"),),
)  # fmt: skip
