"""What a fetch does with a hub that cuts, lies and hesitates; and the process around it."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.pull import Checking, Failed, Fetch, Fetched, FromFetcher, HubFile, Listing, Look, Verified
from inferd.daemon.system import fetch
from inferd.daemon.system.fetch import RETRIES, Fetching
from inferd.daemon.system.fetcher import COMMAND, SWITCHES
from inferd.daemon.system.hub import Hub, HubError
from inferd.tests.hub import Fault, Repo, StandIn, git_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RAW = bytes(range(256)) * 2000
CONFIG = b'{"a": 1}'
SHA256 = hashlib.sha256(RAW).hexdigest()
FILES = (HubFile("m.gguf", len(RAW), SHA256), HubFile("config.json", len(CONFIG), git_blob(CONFIG)))


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as hub:
        hub.repos["owner/name"] = Repo({"m.gguf": RAW, "config.json": CONFIG})
        yield hub


class Told:
    """What a fetch says, and how long it would have waited."""

    def __init__(self, stand_in: StandIn, folder: Path) -> None:
        self.said: list[FromFetcher] = []
        self.pauses: list[float] = []
        self.folder = folder
        self.commit = stand_in.repos["owner/name"].commit
        look = Look(stand_in.endpoint, "", "owner/name", "main")
        self.work = Fetching(Hub(look.endpoint, ""), look, self.said.append, self.pauses.append)

    def fetch(self, *files: HubFile, min_free_bytes: int = 0) -> Verified:
        return self.work.fetch(self.commit, Fetch(str(self.folder), files or FILES, min_free_bytes))

    def failure(self, *files: HubFile, **options: Any) -> HubError:
        with pytest.raises(HubError) as caught:
            self.fetch(*files, **options)
        return caught.value

    def part(self, file: HubFile = FILES[0]) -> bytes | None:
        path = self.folder / file.digest
        return path.read_bytes() if path.exists() else None


@pytest.fixture
def told(stand_in: StandIn, tmp_path: Path) -> Told:
    return Told(stand_in, tmp_path)


def test_files_come_whole_and_verified(told: Told) -> None:
    assert told.fetch() == Verified((SHA256, hashlib.sha256(CONFIG).hexdigest()))
    assert (told.part(), told.part(FILES[1])) == (RAW, CONFIG)
    assert isinstance(told.said[-1], Checking)
    counts = [message.n_bytes for message in told.said if isinstance(message, Fetched)]
    assert counts == sorted(counts)
    assert counts[-1] == len(RAW) + len(CONFIG)


@pytest.mark.parametrize(("report_s", "is_few"), [(1e9, True), (0.0, False)])
def test_progress_is_told_only_so_often(
    told: Told, monkeypatch: pytest.MonkeyPatch, report_s: float, is_few: bool
) -> None:
    monkeypatch.setattr(fetch, "REPORT_S", report_s)
    told.fetch()
    n_reports = sum(isinstance(message, Fetched) for message in told.said)
    assert (n_reports == 2 * len(FILES)) is is_few, "at the start and at the end of each file"


def test_a_cut_is_gone_on_with_where_it_was(told: Told, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", Fault(cut_after=100_000), Fault(cut_after=200_000))
    told.fetch()
    assert [headers.get("range") for headers in stand_in.gets("m.gguf")] == [None, "bytes=100000-", "bytes=300000-"]
    assert told.part() == RAW
    assert len(told.pauses) == 2


def test_what_an_earlier_process_left_is_gone_on_with(told: Told, stand_in: StandIn) -> None:
    (told.folder / SHA256).write_bytes(RAW[:123_456])
    told.fetch()
    assert [headers.get("range") for headers in stand_in.gets("m.gguf")] == ["bytes=123456-"]
    assert told.said[0] == Fetched(123_456)


def test_what_is_whole_is_not_asked_for_again(told: Told, stand_in: StandIn) -> None:
    (told.folder / SHA256).write_bytes(RAW)
    assert told.fetch().sha256[0] == SHA256
    assert stand_in.gets("m.gguf") == []


def test_a_server_without_ranges_is_read_from_the_start(told: Told, stand_in: StandIn) -> None:
    (told.folder / SHA256).write_bytes(b"x" * 1000)
    stand_in.plant("m.gguf", Fault(whole=True))
    told.fetch()
    assert told.part() == RAW


def test_wrong_bytes_are_refused_and_removed(told: Told, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", Fault(flip=True))
    assert told.failure().code is Code.MODEL_CORRUPT
    assert told.part() is None
    assert told.part(FILES[1]) == CONFIG


def test_wrong_bytes_on_disk_are_found_before_they_are_used(told: Told) -> None:
    (told.folder / SHA256).write_bytes(b"\0" * len(RAW))
    assert told.failure().code is Code.MODEL_CORRUPT
    assert told.part() is None


def test_wrong_bytes_of_a_small_file_are_refused_too(told: Told, stand_in: StandIn) -> None:
    stand_in.plant("config.json", Fault(flip=True))
    assert told.failure().code is Code.MODEL_CORRUPT


def test_more_bytes_than_announced_are_refused(told: Told) -> None:
    short = HubFile("m.gguf", 1000, SHA256)
    assert told.failure(short).code is Code.MODEL_CORRUPT
    assert told.part() == b""


def test_fewer_bytes_than_announced_are_tried_again_and_then_refused(told: Told) -> None:
    long = HubFile("m.gguf", len(RAW) + 1, SHA256)
    assert told.failure(long).code is Code.PULL_FAILED
    assert len(told.pauses) == RETRIES + 1


def test_a_busy_hub_is_tried_again_when_it_says(told: Told, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", Fault(status=503, retry_after="9"), Fault(status=429))
    told.fetch()
    assert told.pauses == [9.0, 2.0]
    stand_in.plant("", *(Fault(status=503) for _ in range(2)))
    assert told.work.list().commit == told.commit


def test_a_hub_that_stays_busy_is_given_up(told: Told, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", *(Fault(status=503) for _ in range(20)))
    assert told.failure().code is Code.PULL_FAILED
    assert told.pauses == [1.0, 2.0, 4.0, 8.0, 8.0]
    stand_in.plant("", *(Fault(status=500) for _ in range(20)))
    with pytest.raises(HubError):
        told.work.list()


def test_tries_count_from_the_last_byte(told: Told, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", *(Fault(cut_after=10_000) for _ in range(RETRIES * 3)))
    told.fetch()
    assert told.part() == RAW


def test_a_disk_that_runs_low_is_left_alone(told: Told) -> None:
    error = told.failure(min_free_bytes=2**60)
    assert error.code is Code.NO_ROOM
    assert told.part() == b""


def test_a_link_in_the_way_is_not_written_through(told: Told, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (told.folder / SHA256).symlink_to(victim)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        told.fetch()
    assert caught.value.errno == errno.ELOOP
    assert victim.read_bytes() == b"precious"


def test_two_do_not_write_to_one_file(told: Told, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", Fault())
    with fetch._open(os.open(told.folder, os.O_RDONLY), FILES[0]):
        error = told.failure()
    assert (error.code, error.retry_after_s) == (Code.PULL_FAILED, 5.0)


def test_a_full_disk_is_told_as_one() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert fetch._disk_failed(OSError(number, os.strerror(number))).code is Code.NO_ROOM
    failed = fetch._disk_failed(PermissionError(errno.EACCES, "Permission denied", "/secret/path"))
    assert failed.code is Code.PULL_FAILED
    assert "/secret" not in failed.message


# the process


def run(*messages: Look | Fetch, before: Callable[[], None] | None = None) -> list[FromFetcher]:
    lines = b"".join(msgspec.json.encode(message) + b"\n" for message in messages)
    environment = {**os.environ, **SWITCHES}
    done = subprocess.run(
        COMMAND, input=lines, capture_output=True, env=environment, timeout=60, check=False, preexec_fn=before
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return [msgspec.json.decode(line, type=FromFetcher) for line in done.stdout.splitlines()]


def test_the_process_lists_and_fetches(stand_in: StandIn, tmp_path: Path) -> None:
    look = Look(stand_in.endpoint, "", "owner/name", "main")
    said = run(look, Fetch(str(tmp_path), FILES, 0))
    assert isinstance(said[0], Listing)
    assert said[-1] == Verified((SHA256, hashlib.sha256(CONFIG).hexdigest()))
    assert (tmp_path / SHA256).read_bytes() == RAW


def test_the_process_keeps_what_a_full_disk_has_taken(stand_in: StandIn, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    look = Look(stand_in.endpoint, "", "owner/name", "main")
    *_, failed = run(look, Fetch(str(tmp_path), FILES, 0), before=limit)
    assert isinstance(failed, Failed)
    assert failed.code is Code.NO_ROOM
    assert (tmp_path / SHA256).read_bytes() == RAW[:100_000]
    *_, verified = run(look, Fetch(str(tmp_path), FILES, 0))
    assert isinstance(verified, Verified)
    assert stand_in.gets("m.gguf")[-1]["range"] == "bytes=100000-"


def test_the_process_says_what_failed(stand_in: StandIn, tmp_path: Path) -> None:
    (said,) = run(Look(stand_in.endpoint, "", "owner/none", "main"))
    assert isinstance(said, Failed)
    assert said.code is Code.NOT_FOUND
    look = Look(stand_in.endpoint, "", "owner/name", "main")
    _, said = run(look, Fetch(str(tmp_path / "gone"), FILES, 0))
    assert isinstance(said, Failed)
    assert str(tmp_path) not in said.message
