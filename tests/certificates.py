"""Certificates for tests, made by the openssl of the machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "index.txt").touch()
        (self.folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self.folder}/index.txt\nnew_certs_dir={self.folder}\nrand_serial=yes\n"
            f"default_md=sha256\npolicy=p\nunique_subject=no\ncopy_extensions=copy\n[p]\ncommonName=supplied\n"
        )
        self.pair = Pair(self.folder / "ca.pem", self.folder / "ca.key")
        _openssl(
            "req", "-x509", *CURVE, "-days", "30", "-subj", f"/CN={name}",
            "-keyout", str(self.pair.key), "-out", str(self.pair.certificate),
        )  # fmt: skip

    @property
    def certificate(self) -> Path:
        return self.pair.certificate

    def issue(self, name: str, *, expired: bool = False) -> Pair:
        """For this machine, or for a client called so."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        _openssl(
            "req", *CURVE, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(pair.key), "-out", str(request),
        )  # fmt: skip
        dates = ("200101000000Z", "210101000000Z") if expired else ("200101000000Z", "491231000000Z")
        _openssl(
            "ca", "-batch", "-notext", "-config", str(self.folder / "ca.cnf"), "-cert", str(self.pair.certificate),
            "-keyfile", str(self.pair.key), "-startdate", dates[0], "-enddate", dates[1],
            "-in", str(request), "-out", str(pair.certificate),
        )  # fmt: skip
        return pair


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
