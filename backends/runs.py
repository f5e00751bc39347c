"""The messages about computed blocks that outlive their worker. Their bytes go beside the frames, see shelf.py."""

from __future__ import annotations

import msgspec


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Computed blocks of one text that follow each other, in one sealed file that travels beside the frame."""

    names: list[bytes]  # of its blocks; the first one's is the run's own
    block_bytes: int  # of each
    salt: str  # whose it is; see Submit

    @property
    def n_bytes(self) -> int:
        return len(self.names) * self.block_bytes


class Stored(msgspec.Struct, frozen=True, array_like=True, tag="stored"):
    """Blocks that the daemon has and gives when it is asked with Fetch."""

    names: list[bytes]
    block_bytes: int


class Given(msgspec.Struct, frozen=True, array_like=True, tag="given"):
    """What a worker asked for, or what one before it had; `missing`: asked for and not to be had."""

    runs: list[Run]  # a file comes with each
    missing: list[bytes] = []


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="kept"):
    """The worker keeps these blocks in host RAM; the file with them comes beside the frame."""

    run: Run


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag="dropped"):
    """The worker lets go of a run of blocks."""

    name: bytes
    wanted: bool  # by somebody, since it was kept; what nobody asked for twice is hardly worth a place on disk


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag="fetch"):
    """The worker wants these blocks, of which Stored told; Given is the answer."""

    names: list[bytes]
