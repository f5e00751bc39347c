"""What the daemon adds to the time to first token: the engine is the fake one, which needs no time at all."""

from __future__ import annotations

import time

from inferd import Client

from . import daemon, models
from .figures import Figure, Outcome, percentile

BAR_MS = 3.0
PROMPT = list(range(1, 33))


def measure(*, quick: bool) -> Outcome:
    model = models.tiny()
    name = model.stem
    n_requests = 100 if quick else 500
    with daemon.running(daemon.fake_config(model)) as one, Client(one.address) as client:
        client.load(name).wait()
        for _ in range(20):
            first_text_ms(client, name)
        both = [first_text_ms(client, name) for _ in range(n_requests)]
    seen_ms, own_ms = [seen for seen, _ in both], [own for _, own in both]
    p50, p99 = percentile(seen_ms, 0.5), percentile(seen_ms, 0.99)
    figure = Figure(
        "what the daemon adds to TTFT (fake engine, idle), p50", p50, min(seen_ms), p99, n_requests, "ms", BAR_MS, False
    )
    line = (
        f"TTFT as the client sees it, from the call to the first text: p50 {p50:.2f}, p99 {p99:.2f} ms (the spread "
        f"in the table ends at p99); as the daemon reports it: p50 {percentile(own_ms, 0.5):.2f} ms."
    )
    return Outcome([figure], [line])


def first_text_ms(client: Client, model: str) -> tuple[float, float]:
    """(seen by the client, reported by the daemon) of one request that runs alone."""
    start_s = time.perf_counter()
    seen_ms = 0.0
    answer = client.generate(model, PROMPT, max_tokens=4, ignore_eos=True, temperature=0.0)
    for delta in answer:
        if delta.text and not seen_ms:
            seen_ms = (time.perf_counter() - start_s) * 1e3
    assert answer.timings is not None
    return seen_ms, answer.timings.ttft_ms
