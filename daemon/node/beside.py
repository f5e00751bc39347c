"""What is loaded beside a model: a smaller one that guesses for it, and its adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...backends.facts import CorruptModel
from ..domain.errors import Code, InferdError
from .plans import options_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...backends.facts import Adapter, ModelFacts
    from ..domain.config import Config
    from ..system.catalog import Catalog, Entry


class Beside(NamedTuple):
    """As `make_plans` takes them."""

    draft: ModelFacts | None
    adapters: tuple[Adapter, ...]


def beside(name: str, facts: ModelFacts, config: Config, catalog: Catalog, entries: Mapping[str, Entry]) -> Beside:
    """As the config has it and the disk is now. Raises InferdError."""
    wanted = options_for(name, config).adapters or {}
    try:
        return Beside(draft_of(name, config, entries), catalog.adapters(wanted, facts))
    except CorruptModel as error:
        raise InferdError(Code.MODEL_CORRUPT, f"{name}: {error}", field="model") from None


def draft_of(name: str, config: Config, entries: Mapping[str, Entry]) -> ModelFacts | None:
    """The smaller model that guesses the tokens of this one; None without one. Raises InferdError."""
    options = options_for(name, config)
    wanted, spec_type = options.draft_model, options.spec_type
    if wanted == name:  # of the defaults, which are also its own
        return None
    if spec_type not in (None, "draft-simple") or (spec_type is None and wanted is None):
        return None
    if wanted is None:
        raise InferdError(Code.MODEL_FAILED, f'{name}: spec_type = "draft-simple" needs a draft_model', field="model")
    draft = entries.get(wanted)
    if draft is None:
        raise InferdError(Code.MODEL_FAILED, f"{name}: draft_model: there is no model {wanted[:128]!r}", field="model")
    if draft.facts is None:
        raise InferdError(Code.MODEL_CORRUPT, f"{name}: draft_model {wanted}: {draft.error}", field="model")
    return draft.facts
