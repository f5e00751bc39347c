"""`make chaos`: faults, damaged files, damaged messages and overload, against real daemons; every figure has a bar.

Run from the root of the repository: `python -m tests.chaos [--only NAME,...] [--quick] [--seed N] [--messages N]
[--minutes N] [--out FILE]`. The same seed does the same things, as far as the machine's own timing lets it. Exits 1
when a bar is missed. MATRIX.md says where each fault that was thought of is tested, RESULTS.md what came of it.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench import machine, report
from ..bench.figures import Outcome, of_runs
from . import deaths, failpoints, files, garbage, jobs, load, messages, soak, storm

if TYPE_CHECKING:
    from collections.abc import Callable

    Probe = Callable[..., Outcome]

PROBES: dict[str, Probe] = {
    "storm": storm.measure,
    "deaths": deaths.measure,
    "jobs": jobs.measure,
    "failpoints": failpoints.measure,
    "load": load.measure,
    "files": files.measure,
    "messages": messages.measure,
    "garbage": garbage.measure,
    "soak": soak.measure,
}
LONG = ("soak",)  # only when asked for


def main() -> int:
    options = _options()
    print(f"seed {options.seed}", flush=True)
    facts = [*machine.describe(), f"- seed {options.seed}"]
    outcomes: dict[str, Outcome] = {}
    probes = PROBES | {
        "messages": partial(messages.measure, n=options.messages),
        "soak": partial(soak.measure, minutes=options.minutes),
    }
    for name in options.only:
        print(f"running {name}", flush=True)
        start_s = time.monotonic()
        outcomes[name] = _run(probes[name], name, quick=options.quick, seed=options.seed)
        outcomes[name].lines.append(f"- took {time.monotonic() - start_s:.0f} s.")
        print(*map(report.row, outcomes[name].figures), sep="\n", flush=True)  # for one that is cut short
    text = report.render(facts, outcomes, quick=options.quick).replace("# Bench", "# Chaos", 1)
    print(f"\n{text}")
    if options.out is not None:
        options.out.write_text(text)
    return int(any(not figure.met for outcome in outcomes.values() for figure in outcome.figures))


def _run(probe: Probe, name: str, *, quick: bool, seed: int) -> Outcome:
    """One that breaks down is a miss, and no reason to leave the others out."""
    try:
        return probe(quick=quick, seed=seed)
    except Exception as error:
        traceback.print_exc()
        return Outcome([of_runs(f"{name}: broke down", [1], "", at_most=0)], [f"- {type(error).__name__}: {error}"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Try to break inferd.")
    parser.add_argument(
        "--only",
        type=_probes,
        default=[name for name in PROBES if name not in LONG],
        help=f"some of {','.join(PROBES)}",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of an earlier run, to repeat it")
    parser.add_argument("--messages", type=int, default=0, help="to each method; 100,000 take an hour and more")
    parser.add_argument("--minutes", type=float, default=soak.MINUTES, help="of the soak")
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    return parser.parse_args()


def _probes(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PROBES:
            raise argparse.ArgumentTypeError(f"there is no probe {name!r}")
    return names


if __name__ == "__main__":
    sys.exit(main())
