"""What the processor packages have used, from the kernel's power capping counters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sysfs import Root

_ZONES = "sys/class/powercap"


class PackageEnergy:
    """Adds up counters that wrap. They are readable for root alone unless the packaging opened them."""

    def __init__(self, root: Root) -> None:
        self._root = root
        # AMD's packages are under this name too; psys and the sub-zones would count twice.
        names = [name for name in root.names(_ZONES) if re.fullmatch(r"intel-rapl:\d+", name, re.ASCII)]
        zones = [f"{_ZONES}/{name}" for name in names]
        self._zones = [zone for zone in zones if (root.text(f"{zone}/name") or "").startswith("package")]
        self._last_uj: dict[str, int] = {}
        self._total_uj = 0

    def joules(self) -> float | None:
        """Used since the first call; None where there is no counter or we may not read it."""
        readable = False
        for zone in self._zones:
            now_uj = self._root.integer(f"{zone}/energy_uj")
            if now_uj is None:
                continue
            readable = True
            step_uj = now_uj - self._last_uj.get(zone, now_uj)
            if step_uj < 0:
                step_uj += self._root.integer(f"{zone}/max_energy_range_uj") or -step_uj
            self._total_uj += max(0, step_uj)
            self._last_uj[zone] = now_uj
        return self._total_uj / 1e6 if readable else None
