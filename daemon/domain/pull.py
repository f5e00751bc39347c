"""Models from the hub, in words: what somebody wants, what a repository holds, and what goes to and from its fetcher.

What a client names becomes part of an address and of a path, so each field is checked here, before anything is asked.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated

import msgspec
from msgspec import Meta

from .errors import Code, InferdError

MAIN = "main"  # the revision where none is named
SUFFIXES = (".gguf", ".onnx")
# What is kept beside an ONNX model and read with it, or by onnxruntime-genai.
SIDE_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "genai_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
MAX_PATH_CHARS = 512
MAX_FILES = 4096  # of a repository, that a model could be made of
MAX_FILE_BYTES = 2**46

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_REPO_CHARS = 96  # the hub's own limit
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


class PullState(Enum):
    RESOLVING = "resolving"  # or waiting for others to end
    FETCHING = "fetching"
    VERIFYING = "verifying"
    READY = "ready"


NEXT: dict[PullState, set[PullState]] = {
    PullState.RESOLVING: {PullState.FETCHING, PullState.READY},  # at once ready: everything was there
    PullState.FETCHING: {PullState.VERIFYING},
    PullState.VERIFYING: {PullState.READY},
    PullState.READY: set(),
}


class PullOrder(msgspec.Struct, frozen=True):
    """What a client asks for; empty: left to us."""

    repo: str
    file: str = ""
    revision: str = MAIN
    name: str = ""
    sha256: str = ""  # of the file, in hex


class PullProgress(msgspec.Struct, frozen=True):
    state: PullState = PullState.RESOLVING
    n_bytes: int = 0  # that are here
    total_bytes: int = 0
    bytes_per_s: float = 0.0
    model: str = ""
    sha256: str = ""
    file: str = ""
    why: str = ""  # that file


class HubFile(msgspec.Struct, frozen=True):
    """A file of a repository, as the hub tells of it."""

    name: str  # with its folders
    n_bytes: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]
    digest: str = ""  # 64 hex digits: SHA-256; 40: git's of a blob; empty: the hub tells none


# to the fetcher


class Look(msgspec.Struct, frozen=True):
    """The first line."""

    endpoint: str
    token: str
    repo: str
    revision: str


class Fetch(msgspec.Struct, frozen=True):
    """The second one. Each file gets its digest as its name in the folder, and what is there of it is gone on with."""

    folder: str
    files: tuple[HubFile, ...]
    min_free_bytes: int  # of the disk, that are left free


# from it


class Listing(msgspec.Struct, frozen=True, tag=True):
    commit: str
    files: Annotated[tuple[HubFile, ...], Meta(max_length=MAX_FILES)]


class Fetched(msgspec.Struct, frozen=True, tag=True):
    n_bytes: Annotated[int, Meta(ge=0)]  # of all files together


class Checking(msgspec.Struct, frozen=True, tag=True):
    """All bytes are here, and are being read once more."""


class Verified(msgspec.Struct, frozen=True, tag=True):
    sha256: tuple[str, ...]  # in the order of the files


class Failed(msgspec.Struct, frozen=True, tag=True):
    code: Code
    message: str
    retry_after_ms: int | None = None


FromFetcher = Listing | Fetched | Checking | Verified | Failed


def check_order(order: PullOrder) -> PullOrder:
    """As it is, with the digest in lower case. Raises InferdError that names the field."""
    repo = order.repo
    if not _REPO.fullmatch(repo) or ".." in repo or len(repo) > _MAX_REPO_CHARS:
        text = f"repo must be owner/name with letters, digits and ._- of at most {_MAX_REPO_CHARS} characters"
        raise InferdError(Code.INVALID, f"{text}, not {repo[:128]!r}", field="repo", highest=_MAX_REPO_CHARS)
    if not _REVISION.fullmatch(order.revision) or not is_safe_path(order.revision):
        text = "revision must be a branch, a tag or a commit: letters, digits and ._/- of at most 128 characters"
        raise InferdError(Code.INVALID, f"{text}, not {order.revision[:128]!r}", field="revision", highest=128)
    if order.file and not (is_safe_path(order.file) and order.file.lower().endswith(SUFFIXES)):
        text = f"file must be a path in the repo of at most {MAX_PATH_CHARS} characters, to {' or '.join(SUFFIXES)}"
        raise InferdError(Code.INVALID, f"{text}, not {order.file[:128]!r}", field="file", highest=MAX_PATH_CHARS)
    sha256 = order.sha256.lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise InferdError(Code.INVALID, "sha256 must be 64 hex digits", field="sha256")
    return msgspec.structs.replace(order, sha256=sha256)


def is_safe_path(path: str) -> bool:
    """It leads from a folder to something in it: never up, to a hidden file, or by a character that others obey."""
    return (
        0 < len(path) <= MAX_PATH_CHARS
        and path.isprintable()
        and "\\" not in path
        and all(part and not part.startswith(".") and len(part) <= 200 for part in path.split("/"))
    )


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None
