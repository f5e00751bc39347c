"""Pulls as protobuf has them."""

from __future__ import annotations

from ...protos import inferd_pb2 as pb
from ..domain.errors import Code, InferdError
from ..domain.pull import MAIN, PullOrder, PullProgress, check_order


def to_order(wire: pb.PullModelRequest) -> PullOrder:
    """Raises InferdError naming the first wrong field."""
    if not wire.repo:
        raise InferdError(Code.INVALID, "repo is missing", field="repo")
    return check_order(PullOrder(wire.repo, wire.file, wire.revision or MAIN, wire.name, wire.sha256))


def to_progress(progress: PullProgress) -> pb.PullProgress:
    """Field for field."""
    return pb.PullProgress(
        state=progress.state.value,
        bytes=progress.n_bytes,
        total_bytes=progress.total_bytes,
        bytes_per_s=progress.bytes_per_s,
        model=progress.model,
        sha256=progress.sha256,
        file=progress.file,
        why=progress.why,
    )
