"""The certificate that the daemon shows, and whose certificates it trusts; read again when the files are other ones."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from ..domain.config import Tls

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 2**20
Stamp = tuple[tuple[int, int, int], ...]


class BadCertificate(Exception):
    """Files that cannot be used; the message names the setting."""


class Certificates:
    """gRPC asks before each new connection, on threads of its own; connections that are open keep what they have."""

    def __init__(self, tls: Tls) -> None:
        self._paths = {"certificate": tls.certificate, "key": tls.key, "client_ca": tls.client_ca}
        self._paths = {name: path for name, path in self._paths.items() if path}
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """For a door; gRPC speaks TLS 1.2 and 1.3. Who has no certificate gets in only where no CA is given."""
        asks = "client_ca" in self._paths
        return grpc.dynamic_ssl_server_credentials(self._first, self._newest, require_client_authentication=asks)

    def _newest(self) -> Any:
        """None: what there was. Never raises: a pair that is half written leaves the old one."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp == self._seen:
                    return None
                self._seen = stamp  # also of what is wrong: it is told once
                read = self._read()
            except BadCertificate as error:
                log.warning("%s; the one before goes on", error)
                return None
            log.info("the certificate was read again")
            return read

    def _read(self) -> Any:
        """Raises BadCertificate."""
        import ssl  # only who uses TLS pays for it

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key, client_ca = (self._paths.get(name, "") for name in ("certificate", "key", "client_ca"))
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            names = "`server.tls.certificate` and `server.tls.key`"
            raise BadCertificate(f"{names}: {certificate} and {key} are no pair: {_reason(error)}") from None
        try:
            if client_ca:
                context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            raise BadCertificate(f"`server.tls.client_ca`: {client_ca}: {_reason(error)}") from None
        pair = (self._bytes("key"), self._bytes("certificate"))
        roots = self._bytes("client_ca") if client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def _stamp(self) -> Stamp:
        """Raises BadCertificate."""
        stamps = []
        for name, path in self._paths.items():
            try:
                stat = Path(path).stat()
            except (OSError, ValueError) as error:
                raise BadCertificate(f"`server.tls.{name}`: {path}: {_reason(error)}") from None
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(stamps)

    def _bytes(self, name: str) -> bytes:
        try:
            with open(self._paths[name], "rb") as file:
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise BadCertificate(f"`server.tls.{name}`: {self._paths[name]}: {_reason(error)}") from None


def _no_password() -> str:
    raise ValueError("the key must not need a password")


def _reason(error: Exception) -> str:
    """Without what Python says of its own source."""
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
