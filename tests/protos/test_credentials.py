"""What a client brings with each call, and what it never sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.protos.credentials import metadata_of, tls_of
from inferd.protos.errors import InferdError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_token_comes_from_the_argument_or_the_environment() -> None:
    environ = {"INFERD_TOKEN": "theirs"}
    assert metadata_of("unix:/x", None, None, {}) == ()
    assert metadata_of("unix:/x", "t", None, environ) == (("inferd-tenant", "t"), ("authorization", "Bearer theirs"))
    assert metadata_of("unix:/x", None, "ours", environ) == (("authorization", "Bearer ours"),)
    assert metadata_of("unix:/x", None, "", environ) == ()


@pytest.mark.parametrize("address", ["unix:/x", "localhost:1", "127.0.0.1:1", "[::1]:1", "tls:example.org:1"])
def test_it_is_sent_where_nobody_listens(address: str) -> None:
    assert metadata_of(address, None, "ours", {})


@pytest.mark.parametrize("address", ["example.org:1", "10.0.0.1:1", "127.example.org:1", "[::]:1"])
def test_it_is_never_sent_in_the_clear(address: str) -> None:
    with pytest.raises(InferdError, match=r"in the clear: dial tls:") as caught:
        metadata_of(address, None, "ours", {})
    assert "ours" not in caught.value.message
    assert metadata_of(address, "t", "", {})


@pytest.mark.parametrize("token", ["a\nb", "ä"])
def test_what_cannot_be_metadata_is_named(token: str) -> None:
    with pytest.raises(InferdError) as caught:
        metadata_of("unix:/x", None, token, {})
    assert (caught.value.code, caught.value.field) == ("invalid", "token")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert tls_of("localhost:1", {"INFERD_CA": "/nowhere"}) is None
    assert tls_of("tls:localhost:1", {}) is not None
    for environ, field in (
        ({"INFERD_CA": f"{tmp_path}/none"}, "INFERD_CA"),
        ({"INFERD_CERTIFICATE": "/c"}, "INFERD_CERTIFICATE"),
        ({"INFERD_KEY": "/k"}, "INFERD_CERTIFICATE"),
    ):
        with pytest.raises(InferdError) as caught:
            tls_of("tls:localhost:1", environ)
        assert (caught.value.code, caught.value.field) == ("invalid", field)
