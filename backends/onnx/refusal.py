"""What a client is told when a graph cannot be computed with its inputs."""

from __future__ import annotations

import re

_PATHS = re.compile(r"\S*/\S+")
_MAX_SAID = 240
NO_MEMORY = "there is not enough memory for these inputs"


class InputRefused(Exception):
    """The graph cannot be computed with these inputs; the message is fit for a client."""


def sentence(error: Exception) -> str:
    """The end of what the runtime says, without its paths."""
    text = str(error)
    if "Failed to allocate memory" in text or "bad_alloc" in text:
        return NO_MEMORY
    said = text.rpartition("Status Message:")[2] or text
    said = " ".join(_PATHS.sub("", said).split())
    return f"the graph cannot be computed with these inputs: {said[:_MAX_SAID]}"
