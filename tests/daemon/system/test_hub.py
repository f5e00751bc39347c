"""The hub's library against a stand-in: what is asked for, where it leads, and what failures are told as."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.pull import HubFile
from inferd.daemon.system.hub import Busy, Hub, HubError
from inferd.tests.hub import Fault, Repo, StandIn, git_blob

if TYPE_CHECKING:
    from collections.abc import Iterator

RAW = bytes(range(256)) * 300


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as hub:
        hub.repos["owner/name"] = Repo({"m.gguf": RAW, "config.json": b"{}", "README.md": b"hello"})
        yield hub


@pytest.fixture
def hub(stand_in: StandIn) -> Hub:
    return Hub(stand_in.endpoint, "")


def failure(hub: Hub, repo: str = "owner/name") -> HubError:
    with pytest.raises(HubError) as caught:
        hub.list(repo, "main")
    return caught.value


def read(hub: Hub, stand_in: StandIn, start: int = 0) -> tuple[int, bytes]:
    commit = stand_in.repos["owner/name"].commit
    with hub.open("owner/name", commit, "m.gguf", start) as (at, pieces):
        return at, b"".join(pieces)


def test_a_listing_has_what_a_model_is_made_of_with_digests(hub: Hub, stand_in: StandIn) -> None:
    listing = hub.list("owner/name", "main")
    assert listing.commit == stand_in.repos["owner/name"].commit
    assert listing.files == (
        HubFile("m.gguf", len(RAW), hashlib.sha256(RAW).hexdigest()),
        HubFile("config.json", 2, git_blob(b"{}")),
    )
    assert [path for path, _ in stand_in.asked] == ["/api/models/owner/name/revision/main?blobs=true"]


def test_nobody_is_told_more_than_is_needed(hub: Hub, stand_in: StandIn) -> None:
    hub.list("owner/name", "main")
    read(hub, stand_in)
    for _, headers in stand_in.asked:
        assert "authorization" not in headers
        assert headers["user-agent"].startswith("inferd")


@pytest.mark.parametrize("name", ["../m.gguf", "/m.gguf", ".m.gguf", "a\\m.gguf", "m\n.gguf"])
def test_a_hostile_name_is_not_in_it(hub: Hub, stand_in: StandIn, name: str) -> None:
    stand_in.repos["owner/name"].files[name] = b"x"
    assert {file.name for file in hub.list("owner/name", "main").files} == {"m.gguf", "config.json"}


@pytest.mark.parametrize("lie", [{"size": -1}, {"size": "9"}, {"size": None}, {"size": True}])
def test_nor_a_file_without_a_size(hub: Hub, stand_in: StandIn, lie: dict[str, object]) -> None:
    stand_in.repos["owner/name"].lies["m.gguf"] = lie
    assert [file.name for file in hub.list("owner/name", "main").files] == ["config.json"]


def test_a_digest_that_is_none_is_left_out(hub: Hub, stand_in: StandIn) -> None:
    lie = {"lfs": {"size": 1, "sha256": "../../../../etc/x", "pointerSize": 1}}
    stand_in.repos["owner/name"].lies["m.gguf"] = lie
    assert hub.list("owner/name", "main").files[0] == HubFile("m.gguf", len(RAW), "")


def test_bytes_come_from_where_they_are_wanted(hub: Hub, stand_in: StandIn) -> None:
    assert read(hub, stand_in) == (0, RAW)
    assert read(hub, stand_in, 1000) == (1000, RAW[1000:])


def test_a_server_that_knows_no_ranges_sends_the_whole(hub: Hub, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", Fault(whole=True))
    assert read(hub, stand_in, 1000) == (0, RAW)


def test_a_range_that_is_not_there_begins_anew(hub: Hub, stand_in: StandIn) -> None:
    assert read(hub, stand_in, len(RAW) + 1) == (0, b"")


def test_a_connection_that_ends_early_may_be_tried_again(hub: Hub, stand_in: StandIn) -> None:
    stand_in.plant("m.gguf", Fault(cut_after=5000))
    with pytest.raises(Busy):
        read(hub, stand_in)


@pytest.mark.parametrize(("status", "retry_after", "wait_s"), [(429, "7", 7.0), (503, "", None), (500, "soon", None)])
def test_a_busy_hub_may_be_tried_again(
    hub: Hub, stand_in: StandIn, status: int, retry_after: str, wait_s: float | None
) -> None:
    stand_in.plant("", Fault(status=status, retry_after=retry_after))
    error = failure(hub)
    assert (type(error), error.code, error.retry_after_s) == (Busy, Code.PULL_FAILED, wait_s)


def test_a_long_wait_is_left_to_the_client(hub: Hub, stand_in: StandIn) -> None:
    stand_in.plant("", Fault(status=429, retry_after="3600"))
    error = failure(hub)
    assert (type(error), error.retry_after_s) == (HubError, 3600.0)


def test_what_is_not_there_is_told_so(hub: Hub) -> None:
    assert failure(hub, "owner/other").code is Code.NOT_FOUND


def test_a_token_is_sent_where_one_is_wanted(stand_in: StandIn) -> None:
    stand_in.token = "hf_secret"
    error = failure(Hub(stand_in.endpoint, ""))
    assert error.code is Code.PULL_FAILED
    assert "token_file" in error.message
    hub = Hub(stand_in.endpoint, "hf_secret")
    hub.list("owner/name", "main")
    assert read(hub, stand_in) == (0, RAW)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"id": 1}', b'{"id": "a", "sha": "../x", "siblings": []}'])
def test_an_answer_that_makes_no_sense_is_a_failure(hub: Hub, stand_in: StandIn, body: bytes) -> None:
    stand_in.plant("", Fault(body=body))
    assert failure(hub).code is Code.PULL_FAILED


def test_a_hub_that_is_not_there_may_be_tried_again() -> None:
    with StandIn() as gone:
        pass
    error = failure(Hub(gone.endpoint, ""))
    assert isinstance(error, Busy)
    assert gone.endpoint not in error.message


# redirects


def test_a_redirect_is_followed_and_the_token_stays(stand_in: StandIn) -> None:
    with StandIn() as elsewhere:
        elsewhere.repos = stand_in.repos
        stand_in.token = "hf_secret"
        commit = stand_in.repos["owner/name"].commit
        where = f"{elsewhere.endpoint}/elsewhere/owner/name/resolve/{commit}/m.gguf"
        stand_in.plant("m.gguf", Fault(status=302, location=where))
        assert read(Hub(stand_in.endpoint, "hf_secret"), stand_in, 100) == (100, RAW[100:])
        ((_, headers),) = elsewhere.asked
        assert "authorization" not in headers
        assert headers["range"] == "bytes=100-"


def test_a_redirect_from_https_to_anything_less_is_refused(stand_in: StandIn) -> None:
    hub = Hub("https://hub.invalid", "")
    with pytest.raises(HubError, match="redirects to http, which is not followed"):
        hub.check(stand_in.endpoint)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_what_is_no_web_is_refused(hub: Hub, stand_in: StandIn, location: str) -> None:
    stand_in.plant("m.gguf", Fault(status=302, location=location))
    with pytest.raises(HubError) as caught:
        read(hub, stand_in)
    assert caught.value.code is Code.PULL_FAILED


def test_a_redirect_in_circles_ends(hub: Hub, stand_in: StandIn) -> None:
    commit = stand_in.repos["owner/name"].commit
    here = f"/owner/name/resolve/{commit}/m.gguf"
    stand_in.plant("m.gguf", *(Fault(status=302, location=here) for _ in range(20)))
    with pytest.raises(HubError, match="circles"):
        read(hub, stand_in)
    assert len(stand_in.asked) <= 7
