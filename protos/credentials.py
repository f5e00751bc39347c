"""What a client brings with each call, and whom it trusts: the token, the tenant, and the certificates of TLS."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING

from .address import TLS
from .errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc

TENANT_METADATA = "inferd-tenant"
TOKEN = "INFERD_TOKEN"  # each is a variable of the environment
CA = "INFERD_CA"  # file of the CA that signed the daemon's certificate; default: those that the system trusts
CERTIFICATE, KEY = "INFERD_CERTIFICATE", "INFERD_KEY"  # files of the client's own, where the daemon asks for one


def metadata_of(
    address: str, tenant: str | None, token: str | None, environ: Mapping[str, str] = os.environ
) -> tuple[tuple[str, str], ...]:
    """Of each call. `token`: None: the environment's; empty: none. Raises InferdError("invalid")."""
    metadata = [(TENANT_METADATA, tenant)] if tenant else []
    if token is None:
        token = environ.get(TOKEN, "")
    if token:
        if not (token.isascii() and token.isprintable()):
            raise InferdError("invalid", "a token has printable ASCII characters only", details={"field": "token"})
        if not address.startswith((TLS, "unix:")) and not _is_loopback(address):
            message = f"a token is not sent to {address} in the clear: dial {TLS}{address}"
            raise InferdError("invalid", message, details={"field": "address"})
        metadata.append(("authorization", f"Bearer {token}"))
    return tuple(metadata)


def tls_of(address: str, environ: Mapping[str, str] = os.environ) -> grpc.ChannelCredentials | None:
    """For a channel to a resolved address; None: it has no TLS. Raises InferdError("invalid")."""
    if not address.startswith(TLS):
        return None
    import grpc

    if bool(environ.get(CERTIFICATE)) != bool(environ.get(KEY)):
        raise InferdError("invalid", f"{CERTIFICATE} and {KEY} go together", details={"field": CERTIFICATE})
    return grpc.ssl_channel_credentials(_read(CA, environ), _read(KEY, environ), _read(CERTIFICATE, environ))


def _read(name: str, environ: Mapping[str, str]) -> bytes | None:
    if not (path := environ.get(name)):
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InferdError("invalid", f"{name}: {path}: {error.strerror}", details={"field": name}) from None


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
