"""Runs of computed blocks on disk: which are there, and their way there and back."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from inferd.backends import memfd
from inferd.backends.messages import Run
from inferd.daemon.domain.config import Cache
from inferd.daemon.node.disk import Disk, close_all
from inferd.daemon.system import vault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK_BYTES = 1000
OPEN: list[Disk] = []


@pytest.fixture(autouse=True)
def no_file_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    close_others()
    assert len(os.listdir("/proc/self/fd")) <= before


def close_others() -> None:
    while OPEN:
        OPEN.pop().close()


def files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "kv").glob("*.kv"))


def run_of(*names: str) -> Run:
    return Run([name.encode() for name in names], BLOCK_BYTES, "t")


async def put(disk: Disk, run: Run, fingerprint: str = "f") -> bool:
    fd = memfd.create(run.n_bytes)
    with memfd.writable(fd) as view:
        view[:] = b"".join(name[:1] * BLOCK_BYTES for name in run.names)
    memfd.seal(fd)
    try:
        return await disk.put(fingerprint, run, fd)
    finally:
        os.close(fd)


async def get(disk: Disk, *names: str, fingerprint: str = "f") -> tuple[dict[str, bytes], list[str]]:
    """First bytes by name, and what is missing."""
    found, missing = await disk.get(fingerprint, [name.encode() for name in names], 10**9)
    seen: dict[str, bytes] = {}
    for run, fd in found:
        content = bytes(memfd.readable(fd, run.n_bytes))
        seen |= {name.decode(): content[i * BLOCK_BYTES :][:1] for i, name in enumerate(run.names)}
    close_all(found)
    return seen, [name.decode() for name in missing]


async def opened(tmp_path: Path, **config: object) -> Disk:
    """Of the next daemon: the one before has let go of the folder."""
    close_others()
    disk = Disk()
    await disk.open(Cache(folder=str(tmp_path / "kv"), **config), tmp_path / "state")  # type: ignore[arg-type]
    OPEN.append(disk)
    return disk


async def test_what_was_put_is_had_by_any_of_its_names_and_after_a_restart(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    assert await put(disk, run_of("a", "b"))
    for one in (disk, None):
        disk = one or await opened(tmp_path)
        assert await get(disk, "b", "c") == ({"a": b"a", "b": b"b"}, ["c"])
        assert disk.known("f") == [run_of("a", "b")]
        assert disk.n_bytes > 2 * BLOCK_BYTES


async def test_a_run_of_which_only_a_part_is_there_is_written(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    await put(disk, run_of("a"))
    assert await put(disk, run_of("a", "b"))
    assert await get(disk, "a", "b") == ({"a": b"a", "b": b"b"}, [])


async def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    for name in ("a", "b", "c"):
        await put(disk, run_of(name))
    found, missing = await disk.get("f", [b"a", b"b", b"c"], 2 * BLOCK_BYTES)
    close_all(found)
    assert ([run.names for run, _ in found], missing) == ([[b"a"], [b"b"]], [b"c"])


async def test_a_second_daemon_has_no_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = await opened(tmp_path)
    OPEN.clear()
    second = await opened(tmp_path)
    assert (await put(first, run_of("a")), await put(second, run_of("b"))) == (True, False)
    assert "another daemon" in caplog.text
    first.close()


async def test_another_model_has_nothing_of_it(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    await put(disk, run_of("a"))
    assert (disk.known("g"), await get(disk, "a", fingerprint="g")) == ([], ({}, ["a"]))


async def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    await put(disk, run_of("a"))
    (path,) = files(tmp_path)
    os.utime(path, (1.0, 1.0))
    assert await put(disk, run_of("a"))
    assert path.stat().st_mtime == 1.0


async def test_over_the_quota_what_was_used_least_lately_goes(tmp_path: Path) -> None:
    disk = await opened(tmp_path, disk_bytes=2 * BLOCK_BYTES + 400)
    for name in ("a", "b"):
        await put(disk, run_of(name))
    await get(disk, "a")
    await put(disk, run_of("c"))
    assert [run.names for run in disk.known("f")] == [[b"a"], [b"c"]]
    assert len(files(tmp_path)) == 2
    assert disk.n_bytes <= 2 * BLOCK_BYTES + 400
    assert not await put(disk, run_of("d", "e", "f"))
    assert disk.takes_bytes(1e9) == 2 * BLOCK_BYTES + 400


async def test_a_quota_that_was_lowered_is_kept_at_once(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    for name in ("a", "b", "c"):
        await put(disk, run_of(name))
        os.utime(max(files(tmp_path), key=lambda path: path.stat().st_mtime))
    smaller = await opened(tmp_path, disk_bytes=BLOCK_BYTES + 300)
    assert [run.names for run in smaller.known("f")] == [[b"c"]]


async def test_a_file_that_was_damaged_is_missing_and_forgotten(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    await put(disk, run_of("a"))
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert await get(disk, "a") == ({}, ["a"])
    assert (disk.known("f"), disk.n_bytes, files(tmp_path)) == ([], 0, [])
    assert await put(disk, run_of("a"))


async def test_a_disk_that_refuses_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = await opened(tmp_path)
    tries = []
    told: list[str] = []
    disk.on_refused = told.append

    def full(fd: int, part: object) -> None:
        tries.append(part)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vault, "_write", full)
    assert not await put(disk, run_of("a"))
    assert not await put(disk, run_of("b"))
    assert len(tries) == 1
    assert caplog.text.count("No space left") == 1
    assert told == ["computed prompts are not kept on disk for a while: No space left on device"]
    monkeypatch.undo()
    disk._rest_until_s = time.monotonic()
    assert await put(disk, run_of("b"))


@pytest.mark.parametrize("given", ["off", "file in the way"])
async def test_without_a_disk_nothing_is_there_and_nothing_fails(tmp_path: Path, given: str) -> None:
    if given == "off":
        disk = await opened(tmp_path, disk_bytes=0)
    else:
        (tmp_path / "state").write_text("in the way")
        disk = await opened(tmp_path)
    assert not await put(disk, run_of("a"))
    assert (disk.known("f"), disk.takes_bytes(1.0), await get(disk, "a")) == ([], 0, ({}, ["a"]))


async def test_what_is_too_old_goes_when_it_is_opened(tmp_path: Path) -> None:
    disk = await opened(tmp_path)
    await put(disk, run_of("a"))
    (path,) = files(tmp_path)
    os.utime(path, (time.time() - 2 * 86_400,) * 2)
    assert (await opened(tmp_path, disk_ttl_s=86_400.0)).known("f") == []
    assert not path.exists()
