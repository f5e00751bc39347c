"""How soon an empty daemon serves, and what it weighs."""

from __future__ import annotations

import time

from . import daemon
from .figures import Outcome, of_runs, spread

SETTLE_S = 2.0
START_BAR_S = 1.0
RSS_BAR_MB = 90.0


def measure(*, quick: bool) -> Outcome:
    starts_s, rss_mb = [], []
    with daemon.running():  # brings the files into the page cache
        pass
    for _ in range(3 if quick else 7):
        with daemon.running() as one:
            time.sleep(SETTLE_S)  # what the daemon does right after its start belongs to its weight
            starts_s.append(one.start_s)
            rss_mb.append(one.rss_bytes() / 1e6)
    return Outcome(
        [
            of_runs("`inferd serve` to SERVING, no model", starts_s, "s", at_most=START_BAR_S),
            of_runs("daemon RSS, no model", rss_mb, "MB", at_most=RSS_BAR_MB),
        ],
        [f"Start: {spread(starts_s, 3)} s from exec to grpc.health SERVING; VmRSS {SETTLE_S:g} s later."],
    )
