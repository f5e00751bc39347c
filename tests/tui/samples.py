"""A daemon's picture as an operator of a busy workstation would see it, always the same."""

from __future__ import annotations

from inferd.protos import inferd_pb2 as pb

GIB = 1024**3
NOON_UNIX_S = 1_767_096_000.0  # 2025-12-30 12:00:00 UTC

WHY = {
    "room": "mistral-7b-q5 needs 5.8 GiB on gpu0 and 4.9 GiB are free; held by qwen2.5-7b-q4 (busy)",
    "slot": "all 2 slots of embed-e5 are taken",
    "turn": "1 request is served before it: interactive goes before batch",
}


def request(name: str, state: str = "running", /, **fields: object) -> pb.RequestState:
    plain: dict[str, object] = {
        "model": "qwen2.5-7b-q4",
        "priority": "interactive",
        "tenant": "ide",
        "task": "generate",
        "age_ms": 9000.0,
        "prompt_tokens": 1841,
    }
    made = pb.RequestState(id=name, state=state, **{**plain, **fields})  # type: ignore[arg-type]
    if state == "running" and "devices" not in fields:
        made.devices.append("gpu0")
    return made


def requests() -> list[pb.RequestState]:
    flows: dict[str, object] = {
        "tokens": 412,
        "max_tokens": 2048,
        "tokens_per_s": 48.1,
        "ttft_ms": 142.0,
        "cached_tokens": 1622,
    }
    waits: dict[str, object] = {
        "model": "mistral-7b-q5",
        "priority": "normal",
        "tenant": "web",
        "why": "room",
        "why_text": WHY["room"],
    }
    return [
        request("r8f21", **flows),
        request("r8f1e", prompt_tokens=11204, max_tokens=512, age_ms=1200.0),
        request(
            "r8f02",
            model="llama3-70b-q4",
            priority="normal",
            tenant="batch",
            tokens=1204,
            max_tokens=4096,
            tokens_per_s=11.9,
            ttft_ms=610.0,
            age_ms=101_000.0,
        ),
        request("r8f2a", "queued", position=0, eta_low_ms=2000.0, eta_high_ms=5000.0, age_ms=4000.0, **waits),
        request("r8f2b", "queued", position=1, eta_low_ms=4000.0, eta_high_ms=9000.0, age_ms=3800.0, **waits),
        request(
            "r8ef0",
            "parking",
            model="llama3-70b-q4",
            priority="batch",
            tenant="nightly",
            tokens=880,
            max_tokens=2000,
            ttft_ms=590.0,
            age_ms=720_000.0,
            moves=1,
        ),
        request(
            "r8f2c",
            "queued",
            model="embed-e5",
            priority="batch",
            tenant="nightly",
            why="slot",
            why_text=WHY["slot"],
            age_ms=3000.0,
            position=0,
            task="embed",
        ),
    ]


def models() -> list[pb.ModelState]:
    return [
        pb.ModelState(
            name="qwen2.5-7b-q4",
            state="ready",
            backend="llama.cpp",
            pid=4711,
            devices=["gpu0"],
            bytes=6 * GIB,
            slots=4,
            running=2,
            kv_cells=32768,
            kv_cells_used=13045,
            kv_cells_kept=2048,
            context_tokens=32768,
            tokens_per_s=96.2,
            weights_bytes=4 * GIB,
            kv_bytes=int(1.2 * GIB),
            rss_bytes=GIB,
            task="generate",
        ),
        pb.ModelState(
            name="llama3-70b-q4",
            state="ready",
            backend="llama.cpp",
            pid=4712,
            devices=["gpu0"],
            bytes=34 * GIB,
            slots=2,
            running=2,
            pinned=True,
            kv_cells=8192,
            kv_cells_used=4225,
            context_tokens=8192,
            tokens_per_s=11.9,
            weights_bytes=31 * GIB,
            kv_bytes=int(2.9 * GIB),
            task="generate",
        ),
        pb.ModelState(
            name="embed-e5",
            state="ready",
            backend="onnx",
            pid=4713,
            devices=["gpu1"],
            bytes=GIB,
            slots=2,
            running=2,
            waiting=1,
            task="embed",
        ),
        pb.ModelState(name="mistral-7b-q5", state="cold", backend="llama.cpp", waiting=2, task="generate"),
        pb.ModelState(
            name="phi4-q4",
            state="failed",
            backend="llama.cpp",
            error="the worker of phi4-q4 ended while loading (signal SIGABRT)",
        ),
    ]


def devices() -> list[pb.DeviceState]:
    ours = [pb.ProcessState(pid=4712, bytes=34 * GIB, model="llama3-70b-q4"), pb.ProcessState(pid=900, bytes=GIB)]
    return [
        pb.DeviceState(
            id="cpu", kind="cpu", name="AMD Ryzen 9 7950X", state="ok", utilization=0.18,
            memory_total_bytes=128 * GIB, memory_used_bytes=47 * GIB, booked_bytes=3 * GIB, own_bytes=3 * GIB,
        ),
        pb.DeviceState(
            id="gpu0", kind="gpu", name="RTX 6000 Ada", state="ok", utilization=0.87, temperature_celsius=61,
            power_watts=212.0, power_limit_watts=300.0, memory_total_bytes=48 * GIB, memory_used_bytes=41 * GIB,
            booked_bytes=40 * GIB, own_bytes=40 * GIB, clock_mhz=2505, clock_max_mhz=3105, memory_clock_mhz=10001,
            throttled_by=["power_cap"], numa_node=0, architecture="8.9", driver_version="580.82", processes=ours,
        ),
        pb.DeviceState(
            id="gpu1", kind="gpu", name="L4", state="lost", detail="the GPU fell off the bus",
            memory_total_bytes=22 * GIB,
        ),
    ]  # fmt: skip


def events() -> list[pb.Event]:
    rows = (
        ("info", "model_ready", "embed-e5 is ready on gpu1 after 1.1 s", {"model": "embed-e5", "device": "gpu1"}),
        ("warning", "preempted", "r8ef0 makes way for r8f02", {"request_id": "r8ef0", "tenant": "nightly"}),
        ("error", "worker_crashed", "the worker of phi4-q4 ended while loading (signal SIGABRT)", {"model": "phi4-q4"}),
        ("error", "device_lost", "gpu1 is lost; what ran there moves", {"device": "gpu1"}),
    )
    return [
        pb.Event(sequence=100 + i, unix_s=NOON_UNIX_S + i, severity=severity, kind=kind, message=text, **about)
        for i, (severity, kind, text, about) in enumerate(rows)
    ]


def tenants() -> list[pb.TenantState]:
    return [
        pb.TenantState(
            tenant="ide", running=2, generation_tokens_per_s=48.1, prompt_tokens_per_s=1200.0,
            prompt_tokens_total=410_000, generation_tokens_total=88_000, requests_finished_total=312, idle_s=1.0,
        ),
        pb.TenantState(
            tenant="web", waiting=2, prompt_tokens_total=12_000, generation_tokens_total=9_000,
            requests_finished_total=40, requests_failed_total=1, requests_refused_total=3, idle_s=4.0,
        ),
        pb.TenantState(tenant="nightly", running=0, waiting=2, stalled=1, stalls_total=2, idle_s=3.0),
    ]  # fmt: skip


def snapshot(live: list[pb.RequestState] | None = None) -> pb.Snapshot:
    live = requests() if live is None else live
    n_running = sum(r.state != "queued" for r in live)
    return pb.Snapshot(
        version="0.1.0",
        state="serving",
        uptime_s=273_060.0,
        sequence=1,
        models=models(),
        requests=live,
        devices=devices(),
        tenants=tenants(),
        rates=pb.Rates(
            prompt_tokens_per_s=2100.0,
            generation_tokens_per_s=148.0,
            num_requests_running=n_running,
            num_requests_waiting=len(live) - n_running,
            ttft_p50_ms=180.0,
            ttft_p95_ms=410.0,
            ttft_p99_ms=1200.0,
            queue_p50_ms=300.0,
            queue_p95_ms=4100.0,
            tpot_p50_ms=21.0,
            tpot_p95_ms=34.0,
            preemptions_total=1,
        ),
        host=pb.HostState(
            name="ws1",
            memory_total_bytes=128 * GIB,
            memory_available_bytes=81 * GIB,
            booked_bytes=3 * GIB,
            psi_memory_some_avg10=0.0,
            psi_cpu_some_avg10=1.2,
            psi_io_some_avg10=12.5,
            pressure="normal",
            cores=32,
            swap_total_bytes=8 * GIB,
            swap_free_bytes=8 * GIB,
            numa_nodes=[pb.NumaState(id=0, cores=32, memory_total_bytes=128 * GIB, memory_free_bytes=70 * GIB)],
        ),
        warnings=[
            pb.Warning(
                code="device_lost",
                severity="warning",
                message="gpu1 (L4): the GPU fell off the bus",
                remedy="run: inferd doctor",
            )
        ],
    )


def catalog() -> list[pb.ModelInfo]:
    return [
        pb.ModelInfo(
            name="qwen2.5-7b-q4", state="ready", architecture="qwen2", quantization="Q4_K_M", parameters=7_600_000_000,
            file_bytes=int(4.7 * GIB), context_tokens=32768, layers=28, chat=True, task="generate",
        ),
        pb.ModelInfo(name="tiny-cold", state="cold", architecture="llama", quantization="Q8_0", file_bytes=3_000_000),
        pb.ModelInfo(name="broken", state="failed", error="not a GGUF file"),
    ]  # fmt: skip


def records() -> list[pb.DecisionRecord]:
    return [
        pb.DecisionRecord(age_ms=4000, kind="admit", summary="taken in as normal, about 1,244 tokens"),
        pb.DecisionRecord(
            age_ms=3900, kind="queue", summary="waits: other models hold the memory that its model needs"
        ),
    ]


def plan() -> pb.PlanLoadResponse:
    made = pb.PlanLoadResponse(model="tiny-cold", outcome="evicts", devices=["gpu0"], victims=["qwen2.5-7b-q4"])
    made.pools.add(pool="gpu0", needed_bytes=6 * GIB, free_bytes=5 * GIB)
    made.holders.add(model="llama3-70b-q4", bytes=34 * GIB, stays="pinned")
    made.load_ms = 1400
    return made


def event(sequence: int, message: str, severity: str = "info", kind: str = "note") -> pb.Event:
    return pb.Event(sequence=sequence, unix_s=NOON_UNIX_S + sequence, severity=severity, kind=kind, message=message)
