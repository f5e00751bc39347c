"""One name of the catalog as the Node holds it: its file, the helper that reads its prompts, and its residents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.model import Model, ModelState
from .prompter import Prompter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...backends.facts import LoadPlan, ModelFacts
    from ..domain.errors import InferdError
    from ..policy.ledger import Ledger
    from ..system.catalog import Entry
    from ..system.workgroups import Groups
    from .resident import Resident

LOADED = (ModelState.LOADING, ModelState.READY, ModelState.DRAINING)
# Of several residents the first of these speaks for the model.
SPEAKS_FIRST = (ModelState.READY, ModelState.LOADING, ModelState.DRAINING, ModelState.COLD, ModelState.FAILED)


class Deployment:
    """A resident for each place where the model may be; most models have one."""

    def __init__(self, name: str, entry: Entry, plan: LoadPlan, ledger: Ledger, groups: Groups) -> None:
        assert entry.facts is not None
        self.name = name
        self.entry = entry
        self.facts: ModelFacts = entry.facts
        self.prompter = Prompter(name, plan, ledger, groups)
        self.residents: dict[str, Resident] = {}  # by place, the preferred one first
        self.load_error: InferdError | None = None  # what those who wait for a load are told
        self.refused: InferdError | None = None  # what those who wait for a lease are told
        self.askers = 0  # who wait for it to be loaded, without a request
        self.lost = False  # a device that it was on is gone
        self.outdated = False  # the config has other options for it by now; they hold when it is loaded next

    @property
    def speaker(self) -> Resident:
        """The one that is most alive; one whose device is lost only where there is no other."""
        present = [resident for resident in self.residents.values() if not resident.lost]
        return min(present or self.residents.values(), key=lambda it: SPEAKS_FIRST.index(it.model.state))

    @property
    def plans(self) -> list[LoadPlan]:
        """As the config has them, the preferred place first."""
        return [resident.plan for resident in self.residents.values()]

    @property
    def model(self) -> Model:
        return self.speaker.model

    @property
    def state(self) -> ModelState:
        return self.speaker.model.state

    def on(self, devices: Iterable[str]) -> list[Resident]:
        """Those that use one of the devices."""
        wanted = set(devices)
        return [resident for resident in self.residents.values() if wanted & set(resident.plan.devices)]


def place_name(model: str, plan: LoadPlan, n_plans: int) -> str:
    """The model's own where it has but one place, else with its devices: `m@gpu1`."""
    return model if n_plans == 1 else f"{model}@{'+'.join(plan.devices) or 'cpu'}"


def wheres(plans: Iterable[LoadPlan]) -> list[tuple[object, ...]]:
    """What of plans may change while the config and the file stay the same."""
    return [(plan.devices, plan.draft, plan.adapters) for plan in plans]
