"""What the inputs and outputs of a graph are for: which axis is the batch, which the sequence, what holds the past."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    Axes = tuple[int | str, ...]

    class Tensor(Protocol):
        """An input or output as a file or a session has it."""

        @property
        def name(self) -> str: ...

        @property
        def axes(self) -> Axes | None:
            """A number for each fixed axis, a name, maybe "", for each free one; None: nobody knows."""


IDS, MASK, SEGMENTS, POSITIONS = "input_ids", "attention_mask", "token_type_ids", "position_ids"
USE_CACHE = "use_cache_branch"  # of decoders that are two graphs in one file: one for prompts, one for what follows
KEEP = "num_logits_to_keep"  # of how many of the last positions; 0: of all
TEXT_INPUTS = {IDS, MASK, SEGMENTS, POSITIONS}
PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
PRESENT = re.compile(r"present\.(\d+)\.(key|value)")
POOLED = "sentence_embedding"
HIDDEN = ("last_hidden_state", "token_embeddings", "hidden_states")
LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Roles:
    batched: bool  # the first axis of all tensors is the same free one
    sequence: str  # the name of the free axis along which texts of unequal length may be padded; "" when there is none
    text: bool  # its inputs are those of a model that reads one text, or a pair
    writes: bool  # and they take texts in pieces, as long as they come
    past: tuple[str, ...]  # inputs with keys and values of what was computed, in the order of `present`
    present: tuple[str, ...]


def roles_of(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Roles:
    past = sorted((t.name for t in inputs if PAST.fullmatch(t.name) and _is_past(t)), key=_layer)
    present = sorted((t.name for t in outputs if PRESENT.fullmatch(t.name)), key=_layer)
    rest = {t.name for t in inputs} - set(past) - {USE_CACHE, KEEP}
    batched = _is_batched([*inputs, *outputs])
    return Roles(
        batched=batched,
        sequence=_sequence(inputs, outputs) if batched else "",
        text=IDS in rest
        and rest <= TEXT_INPUTS
        and all(_takes_texts(t, masked=MASK in rest) for t in inputs if t.name == IDS),
        writes=all(_takes_pieces(t) for t in inputs if t.name == IDS),
        past=tuple(past),
        present=tuple(present),
    )


def _is_past(tensor: Tensor) -> bool:
    """(batch, heads, positions, values), of which only the heads and the values are given."""
    axes = tensor.axes or ()
    return [isinstance(axis, int) for axis in axes[1:]] == [True, False, True] and axes[0] in (1, _axis(tensor, 0))


def _takes_texts(ids: Tensor, *, masked: bool) -> bool:
    """One of any length at a time, or filled up to the only one, where a mask says how far it goes."""
    if ids.axes is None or len(ids.axes) != 2:
        return ids.axes is None
    rows, length = ids.axes
    return (isinstance(rows, str) or rows == 1) and (isinstance(length, str) or masked)


def _takes_pieces(ids: Tensor) -> bool:
    return ids.axes is None or isinstance(ids.axes[-1], str) or ids.axes[-1] == 1


def _layer(name: str) -> tuple[int, str]:
    match = PAST.fullmatch(name) or PRESENT.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]


def _is_batched(tensors: Sequence[Tensor]) -> bool:
    firsts = {_axis(tensor, 0) for tensor in tensors}
    return len(firsts) == 1 and firsts != {""}


def _axis(tensor: Tensor, i: int) -> str:
    """The name of a free axis; "" when it is fixed, nameless, or not there."""
    axes = tensor.axes or ()
    return axis if len(axes) > i and isinstance(axis := axes[i], str) else ""


def _sequence(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    """Padding is safe where a mask says so to the model, and where every output can be cut back."""
    by_name = {tensor.name: tensor for tensor in inputs}
    if not {IDS, MASK} <= set(by_name) <= TEXT_INPUTS:
        return ""
    name = _axis(by_name[IDS], 1)
    if any(len(tensor.axes or ()) != 2 or _axis(tensor, 1) != name for tensor in inputs):
        return ""
    known = (axis == name for tensor in outputs for axis in (tensor.axes or ("", ""))[1:] if isinstance(axis, str))
    return name if all(known) else ""
