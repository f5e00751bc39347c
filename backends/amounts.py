"""Whole numbers as they come from a child, which may say anything: what does not fit here is no message."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

TokenId = Annotated[int, Meta(ge=0, lt=1 << 32)]
Count = Annotated[int, Meta(ge=0, lt=1 << 32)]
Amount = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # of bytes, or of what is counted for as long as a process lives
MAX_INPUTS = 4096  # of one request; a list of lists costs many times its bytes
TokenLists = Annotated[list[list[TokenId]], Meta(max_length=MAX_INPUTS)]
CountLists = Annotated[list[list[Count]], Meta(max_length=MAX_INPUTS)]
