"""LoRA adapters: a call computes with one of them or with none, so requests are grouped by theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence as Many

    from ..messages import Submit
    from .batch import Call
    from .binding import Context
    from .sequence import Sequence


class Adapters:
    """Those of one context by name; `versions` tell files of one name apart."""

    def __init__(self, context: Context, handles: dict[str, Any], versions: dict[str, str]) -> None:
        self._context = context
        self._handles = handles
        self._versions = versions
        self._in_use = ""
        self._turns: dict[str, int] = {}  # when prompts of an adapter were computed last
        self._n_turns = 0

    def fault(self, submit: Submit) -> str:
        """Why the request can never run, or ''."""
        known = not submit.lora or submit.lora in self._handles
        return "" if known else f"the model has no adapter {submit.lora!r}"

    def own(self, submit: Submit) -> Submit:
        """What is computed with an adapter is of no use to any other."""
        if not submit.lora:
            return submit
        salt = f"{submit.cache_salt}\0{submit.lora}\0{self._versions[submit.lora]}"
        return msgspec.structs.replace(submit, cache_salt=salt)

    def plan(self, sequences: list[Sequence], plan: Callable[[Many[Sequence]], list[Call]]) -> list[Call]:
        """The calls of a step, each of one adapter: all that flows, and prompts of the one whose turn it is."""
        if not self._handles or len({s.submit.lora for s in sequences}) < 2:
            return plan(sequences)
        groups: dict[str, list[Sequence]] = {}
        turn = self._turn([s for s in sequences if not s.decoding])
        for s in sequences:
            if s.decoding or s.submit.lora == turn:
                groups.setdefault(s.submit.lora, []).append(s)
        return [call for group in groups.values() for call in plan(group)]

    def use(self, call: Call) -> None:
        """For a call that is about to be computed."""
        name = call.pieces[0].sequence.submit.lora
        if name != self._in_use:
            self._context.use_adapter(self._handles.get(name))
            self._in_use = name

    def _turn(self, prompts: list[Sequence]) -> str | None:
        """Of those with prompts of the highest rank, the adapter that was not computed with for longest.

        Whose rank is lent to it by those that wait for it comes first alone.
        """
        if not prompts:
            return None
        rank = prompts[0].submit.rank
        lent = any(s.submit.rank > rank for s in prompts[1:])
        names = dict.fromkeys(s.submit.lora for s in (prompts[:1] if lent else prompts) if s.submit.rank >= rank)
        chosen = min(names, key=lambda name: self._turns.get(name, 0))
        self._n_turns += 1
        self._turns[chosen] = self._n_turns
        return chosen
