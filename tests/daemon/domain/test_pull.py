"""What a client may name: it becomes part of an address and of a path."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.onnx.folder import SIDE_FILES as READ_BY_THE_BACKEND
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.pull import (
    NEXT,
    SIDE_FILES,
    PullOrder,
    PullState,
    check_order,
    is_digest,
    is_safe_path,
)

HOSTILE = [
    *("../a.gguf", "/etc/a.gguf", "a/../b.gguf", "a//b.gguf", "./a.gguf", ".a.gguf", "a\\b.gguf", "a\0.gguf"),
    *("a\n.gguf", "http://evil/a.gguf", "a/.git/b.gguf", f"{'x' * 201}.gguf", "a" + "/b" * 400 + ".gguf"),
]


@pytest.mark.parametrize("repo", ["owner/name", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "a/b", "a_b/c.d-e"])
def test_a_repository_has_an_owner_and_a_name(repo: str) -> None:
    assert check_order(PullOrder(repo)).repo == repo


@pytest.mark.parametrize(
    "repo",
    [
        *(
            "",
            "name",
            "a/b/c",
            "/a",
            "a/",
            "../a",
            "a/..",
            "a/b..c",
            "a/.b",
            "http://host/a",
            "a b/c",
            "a/b?c",
            "a/b#c",
        ),
        *("host:80/x", "a@b/c", "a\n/b", "a/b\n", "a%2f/b", f"a/{'b' * 96}", "ä/b"),
    ],
)
def test_anything_else_is_no_repository(repo: str) -> None:
    with pytest.raises(InferdError) as caught:
        check_order(PullOrder(repo))
    assert (caught.value.code, caught.value.field, caught.value.details) == (Code.INVALID, "repo", {"highest": 96})


@pytest.mark.parametrize("file", HOSTILE)
def test_a_file_stays_in_its_repository(file: str) -> None:
    with pytest.raises(InferdError) as caught:
        check_order(PullOrder("a/b", file))
    assert caught.value.field == "file"


@pytest.mark.parametrize("file", ["a.bin", "model.safetensors", "config.json", "gguf", "a.gguf/b"])
def test_a_file_is_one_that_a_backend_reads(file: str) -> None:
    with pytest.raises(InferdError, match=r"\.gguf or \.onnx"):
        check_order(PullOrder("a/b", file))


@pytest.mark.parametrize("revision", ["", "..", "a/../b", "a b", "-x", "a?b", "a#b", "a\nb", "x" * 129, "/a", "a//b"])
def test_a_revision_is_a_plain_name(revision: str) -> None:
    with pytest.raises(InferdError) as caught:
        check_order(PullOrder("a/b", revision=revision))
    assert caught.value.field == "revision"


@pytest.mark.parametrize("revision", ["main", "refs/pr/3", "v1.0", "0" * 40])
def test_branches_tags_and_commits_are_revisions(revision: str) -> None:
    assert check_order(PullOrder("a/b", revision=revision)).revision == revision


@pytest.mark.parametrize("sha256", ["0" * 63, "g" * 64, "0" * 65, " " * 64])
def test_a_digest_has_64_hex_digits(sha256: str) -> None:
    with pytest.raises(InferdError) as caught:
        check_order(PullOrder("a/b", sha256=sha256))
    assert caught.value.field == "sha256"


def test_a_digest_in_upper_case_is_the_same_one() -> None:
    assert check_order(PullOrder("a/b", sha256="AB" * 32)) == check_order(PullOrder("a/b", sha256="ab" * 32))


@given(st.text(alphabet=st.sampled_from("ab./\\\0\n -~é"), max_size=20))
def test_a_safe_path_never_leads_out_of_its_folder(path: str) -> None:
    if is_safe_path(path):
        joined = posixpath.normpath(posixpath.join("/root/of/it", path))
        assert joined == f"/root/of/it/{path}"


def test_what_a_digest_is() -> None:
    assert is_digest("0" * 40)
    assert is_digest("f" * 64)
    assert not any(map(is_digest, ["", "0" * 41, "F" * 64, "0" * 39 + "/", "../../../../x"]))


def test_every_state_ends_at_ready() -> None:
    assert set(NEXT) == set(PullState)
    assert [state for state, following in NEXT.items() if not following] == [PullState.READY]


def test_what_the_onnx_backend_reads_beside_a_model_is_fetched() -> None:
    assert set(READ_BY_THE_BACKEND) <= set(SIDE_FILES)
