"""How tokens are made, and where their hashes are kept: in the state folder, and in a file that comes with the service.

The service's file ($CREDENTIALS_DIRECTORY/tokens) is as the operator wrote it when the daemon started: its tokens hold
while they stand there, and what was revoked of it is remembered beside our own.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..domain.access import MAX_NAME_CHARS, Role, Token
from .state import MAX_BYTES, save_json, state_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

NAME = "tokens"
PREFIX = "inferd_"  # by which scanners for secrets find one that lies about
SECRET_BYTES = 32
ID_BYTES = 4


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file of the state folder holds."""

    tokens: tuple[Token, ...] = ()
    revoked: tuple[str, ...] = ()  # hashes in the service's file that hold no more


class Unreadable(Exception):
    """The file is there, and nobody knows what it says."""


def mint(name: str, role: Role, tenant: str, unix_s: float, ttl_s: float | None) -> tuple[str, Token]:
    """A new token, which is told once, and what is kept of it."""
    token_id = secrets.token_hex(ID_BYTES)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode().rstrip("=")
    text = f"{PREFIX}{token_id}_{secret}"
    kept = Token(
        id=token_id,
        name=name,
        role=role,
        tenant=tenant,
        sha256=digest_of(text),
        created_unix_s=unix_s,
        expires_unix_s=None if ttl_s is None else unix_s + ttl_s,
    )
    return text, kept


def digest_of(text: str) -> str:
    """A plain hash is enough for what nobody can guess: 256 random bits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def without_secret(text: str) -> str:
    """Safe to be shown, also where somebody wrote a whole token in place of its id."""
    return re.sub(rf"({PREFIX}[^_]{{1,16}}_)\S+", r"\1...", text)


def load(folder: Path | None = None) -> Kept:
    """What `save` has kept; nothing when there is no file. Raises Unreadable."""
    path = (folder or state_folder()) / f"{NAME}.json"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise Unreadable(f"{path}: more than {MAX_BYTES} bytes")
        return msgspec.json.decode(raw, type=Kept)
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: {error}") from None


def save(kept: Kept, folder: Path | None = None) -> bool:
    """Waits for the disk; False, with a line in the log, when it cannot be kept."""
    return save_json(NAME, kept, folder)


def from_credentials(unix_s: float, environ: Mapping[str, str] = os.environ) -> list[Token]:
    """The tokens of the service's file: lines `name role tenant sha256`; one that is wrong is left out, and told."""
    if not (given := environ.get("CREDENTIALS_DIRECTORY")):
        return []
    path, found = Path(given) / NAME, []
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_BYTES).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("%s cannot be read (%s): its tokens do not hold", path, error.strerror)
        return []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if (token := _token_of(words, unix_s)) is None:  # the line itself is not shown: it may hold a secret
            log.warning("%s: line %d is left out: it must be `name role tenant sha256`", path, number)
        else:
            found.append(token)
    return found


def _token_of(words: list[str], unix_s: float) -> Token | None:
    try:
        name, role, tenant, sha256 = words
        kept = {"name": name, "role": role, "tenant": tenant, "sha256": sha256.lower()}
        kept_id = sha256.lower()[: 2 * ID_BYTES]
        token = msgspec.convert({**kept, "id": kept_id, "created_unix_s": unix_s}, Token)
    except (ValueError, msgspec.ValidationError):
        return None
    return token if all(part.isprintable() and len(part) <= MAX_NAME_CHARS for part in (name, tenant)) else None
