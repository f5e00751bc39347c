"""`make bench`: every figure that the project promises, measured on this machine.

Run from the root of the repository: `python -m tests.bench [--only NAME,...] [--quick] [--out FILE] [--strict]`.
A full run is kept in RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import (
    cancel,
    crash,
    fanout,
    footprint,
    gpu,
    gpu_onnx,
    machine,
    monitor,
    overhead,
    prefix,
    replay,
    report,
    restart,
    rules,
    speculation,
    stall,
    startup,
    tensors,
    throughput,
    ttft,
    turns,
)

if TYPE_CHECKING:
    from .figures import Outcome

PROBES = {
    "throughput": throughput.measure,
    "prefix": prefix.measure,
    "speculation": speculation.measure,
    "stall": stall.measure,
    "overhead": overhead.measure,
    "crash": crash.measure,
    "restart": restart.measure,
    "cancel": cancel.measure,
    "ttft": ttft.measure,
    "fanout": fanout.measure,
    "startup": startup.measure,
    "rules": rules.measure,
    "turns": turns.measure,
    "replay": replay.measure,
    "footprint": footprint.measure,
    "tensors": tensors.measure,
    "monitor": monitor.measure,
    "gpu": gpu.measure,
    "gpu_onnx": gpu_onnx.measure,
}
DEFAULT = [name for name in PROBES if not name.startswith("gpu")]
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    options = _options()
    facts = machine.describe()
    outcomes: dict[str, Outcome] = {}
    for name in options.only:
        print(f"measuring {name}", flush=True)
        outcomes[name] = PROBES[name](quick=options.quick)
    text = report.render(facts, outcomes, quick=options.quick)
    print(f"\n{text}")
    full = list(outcomes) == DEFAULT and not options.quick
    out = options.out or (RESULTS if full else None)
    if out is not None:
        out.write_text(text)
    missed = any(not figure.met for outcome in outcomes.values() for figure in outcome.figures)
    return 1 if missed and options.strict else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what inferd promises.")
    parser.add_argument("--only", type=_probes, default=DEFAULT, help=f"some of {','.join(PROBES)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar is missed")
    return parser.parse_args()


def _probes(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PROBES:
            raise argparse.ArgumentTypeError(f"there is no probe {name!r}")
    return names


if __name__ == "__main__":
    sys.exit(main())
