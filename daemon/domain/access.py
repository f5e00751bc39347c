"""Who may do what: roles, who asks, the doors they come by, and the tokens that they bring."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import msgspec
from msgspec import Meta

from .errors import Code, InferdError

DEFAULT_TENANT = "default"
MAX_NAME_CHARS = 64  # of a tenant, and of a token


class Role(Enum):
    """The order of the members is that of what they may: each may what those before it may."""

    VIEWER = "viewer"  # looks
    USER = "user"  # asks models, and ends what its tenant has asked
    OPERATOR = "operator"  # loads, pins, drains, and sees to everybody's requests
    ADMIN = "admin"  # hands out tokens

    def covers(self, least: Role) -> bool:
        """Whether it may what needs that role at least."""
        return _RANK[self] >= _RANK[least]


_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, as one call knows it."""

    role: Role
    tenant: str
    how: str  # socket, loopback, token, certificate
    token_id: str = ""

    @property
    def names_its_tenant(self) -> bool:
        """It is whoever it says: nobody has proven that the tenant is its own."""
        return self.how in ("socket", "loopback")

    @property
    def only_tenant(self) -> str | None:
        """Whose requests it may see to; None: everybody's."""
        return None if self.role.covers(Role.OPERATOR) else self.tenant


@dataclass(frozen=True, slots=True)
class Door:
    """One address that the daemon listens on."""

    name: str  # socket, admin, tcp
    address: str  # unix:/path or host:port
    role: Role | None  # of who brings nothing; None: a token or a certificate is needed
    certificate_role: Role | None = None  # of who brings a certificate; None: nobody is asked for one
    secure: bool = False  # TLS
    owners: bool = False  # of a socket: it is its owner's alone, whoever its folder belongs to


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a token; the token itself is nowhere."""

    id: str
    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
    role: Role
    tenant: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    created_unix_s: float
    expires_unix_s: float | None = None


def check_name(name: str, field: str) -> str:
    """Of a tenant or a token. Raises INVALID."""
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InferdError(Code.INVALID, f"{field} must have 1 to {MAX_NAME_CHARS} printable characters", field=field)
    return name


def check_role(name: str, field: str) -> Role:
    """By its name. Raises INVALID."""
    try:
        return Role(name)
    except ValueError:
        roles = ", ".join(role.value for role in Role)
        raise InferdError(Code.INVALID, f"{field} must be one of {roles}, not {name[:32]!r}", field=field) from None
