"""Certificates: which are taken, when they are read again, and who is let in by one."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inferd import AsyncClient, InferdError, Unreachable
from inferd.daemon import listen, main
from inferd.daemon.api.tls import BadCertificate, Certificates
from inferd.daemon.domain.config import Access, Config, Fake, Models, Server, Tls
from inferd.tests.certificates import Authority, Pair, needs_openssl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """Certificates are slow to make, so they are shared."""
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def ca(made: Path) -> Authority:
    return Authority(made, "ours")


@pytest.fixture(scope="module")
def other_ca(made: Path) -> Authority:
    return Authority(made, "theirs")


@pytest.fixture(scope="module")
def ours(ca: Authority) -> Pair:
    return ca.issue("daemon")


@pytest.fixture
def files(tmp_path: Path, ours: Pair) -> Pair:
    """A daemon's own, to be replaced."""
    pair = Pair(tmp_path / "d.pem", tmp_path / "d.key")
    put(pair, ours)
    return pair


def put(pair: Pair, new: Pair) -> None:
    """As who renews certificates does it: each file at once, one after the other."""
    for path, source in ((pair.certificate, new.certificate), (pair.key, new.key)):
        shutil.copy(source, f"{path}.new")
        os.replace(f"{path}.new", path)


def tls(pair: Pair, client_ca: Path | str = "") -> Tls:
    return Tls(certificate=str(pair.certificate), key=str(pair.key), client_ca=str(client_ca))


# files


def wrong(given: Tls) -> str:
    with pytest.raises(BadCertificate) as caught:
        Certificates(given)
    return str(caught.value)


def test_what_is_no_pair_names_the_settings(files: Pair, other_ca: Authority, tmp_path: Path) -> None:
    stranger = other_ca.issue("stranger")
    assert "`server.tls.certificate` and `server.tls.key`" in wrong(tls(Pair(files.certificate, stranger.key)))
    assert "server.tls.key" in wrong(tls(Pair(files.certificate, tmp_path / "none")))
    assert "server.tls.certificate" in wrong(tls(Pair(tmp_path / "none", files.key)))
    (tmp_path / "junk").write_text("junk")
    assert "server.tls.client_ca" in wrong(tls(files, tmp_path / "junk"))
    assert "server.tls.client_ca" in wrong(tls(files, tmp_path / "none"))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(files: Pair, tmp_path: Path) -> None:
    import subprocess

    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(files.key), "-out", str(locked), "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    assert "password" in wrong(tls(Pair(files.certificate, locked)))


def test_files_are_read_again_when_both_are_there(files: Pair, ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    certificates = Certificates(tls(files))
    assert certificates._newest() is None
    renewed = ca.issue("renewed")
    shutil.copy(renewed.certificate, f"{files.certificate}.new")
    os.replace(f"{files.certificate}.new", files.certificate)
    assert certificates._newest() is certificates._newest() is None  # half of it: the old pair goes on
    assert caplog.text.count("goes on") == 1
    put(files, renewed)
    assert certificates._newest() is not None
    assert certificates._newest() is None
    files.key.unlink()
    assert certificates._newest() is None


# connections


class House:
    def __init__(self, address: str, files: Pair) -> None:
        self.address = f"tls:{address}"
        self.files = files
        self.port = int(address.rpartition(":")[2])


@pytest.fixture
def folder(gguf: Any) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        (Path(name) / "small.gguf").write_bytes(gguf.small(n_vocab=512).build())
        yield Path(name)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
async def house(request: Any, folder: Path, files: Pair, ca: Authority, monkeypatch: Any) -> AsyncIterator[House]:
    """`request.param`: whether clients need a certificate."""
    monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
    address = f"localhost:{free_port()}"
    client_ca = ca.certificate if request.param else ""
    config = Config(
        server=Server(address=address, tls=tls(files, client_ca)),
        access=Access(loopback_role="user", certificate_role="operator"),
        models=Models(folders=(str(folder),)),
        fake=Fake(enabled=True, tokens_per_s=200),
    )
    node, telemetry = main.build(config)
    doors = listen.Doors(config, node, telemetry, listen.doors_of(config))
    await doors.open()
    yield House(address, files)
    await node.drain(0.0)
    await doors.close(None)
    telemetry.sensors.close()


class Trust:
    """What a client of a test trusts and shows, by its environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._set = monkeypatch.setenv
        self._unset = monkeypatch.delenv

    def __call__(self, ca: Authority | None, own: Pair | None = None) -> None:
        names: dict[str, Path | None] = {"INFERD_CA": ca.certificate if ca else None}
        names["INFERD_CERTIFICATE"] = own.certificate if own else None
        names["INFERD_KEY"] = own.key if own else None
        for name, path in names.items():
            self._unset(name, raising=False)
            if path is not None:
                self._set(name, str(path))


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Trust:
    return Trust(monkeypatch)


def dial(address: str) -> AsyncClient:
    return AsyncClient(address, connect_timeout_s=0.3)


async def let_in(house: House) -> tuple[str, str] | None:
    """(role, tenant), or None."""
    async with dial(house.address) as client:
        try:
            me = await client.whoami()
        except Unreachable:
            return None
    return me.role, me.tenant


no_certificate_needed = pytest.mark.parametrize("house", [False], indirect=True, ids=["tls"])
certificate_needed = pytest.mark.parametrize("house", [True], indirect=True, ids=["mtls"])


@no_certificate_needed
async def test_a_client_talks_only_to_the_daemon_that_it_trusts(
    house: House, trust: Trust, ca: Authority, other_ca: Authority
) -> None:
    trust(ca)
    assert await let_in(house) == ("user", "default")
    trust(other_ca)
    assert await let_in(house) is None
    trust(None)
    assert await let_in(house) is None


@no_certificate_needed
async def test_who_speaks_in_the_clear_is_not_heard(house: House) -> None:
    async with dial(house.address.removeprefix("tls:")) as client:
        with pytest.raises(InferdError):
            await client.whoami()


@no_certificate_needed
@pytest.mark.parametrize(("version", "spoken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_what_is_older_than_tls_1_2_is_not_spoken(house: House, version: str, spoken: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with socket.create_connection(("127.0.0.1", house.port), 5) as plain:
        try:
            with context.wrap_socket(plain) as secure:
                assert spoken, secure.version()
        except (ssl.SSLError, OSError):
            assert not spoken


@certificate_needed
async def test_a_client_needs_a_certificate_that_the_daemon_trusts(
    house: House, trust: Trust, ca: Authority, other_ca: Authority
) -> None:
    trust(ca, ca.issue("team-a"))
    assert await let_in(house) == ("operator", "team-a")
    trust(ca)
    assert await let_in(house) is None
    trust(ca, other_ca.issue("team-a"))
    assert await let_in(house) is None
    trust(ca, other_ca.pair)  # signed by itself
    assert await let_in(house) is None
    trust(ca, ca.issue("late", expired=True))
    assert await let_in(house) is None


@certificate_needed
async def test_a_certificates_role_has_its_limits(house: House, trust: Trust, ca: Authority) -> None:
    trust(ca, ca.issue("team-a"))
    async with dial(house.address) as client:
        assert not await client.pin("small")
        with pytest.raises(InferdError) as caught:
            await client.tokens()
    assert caught.value.code == "permission_denied"


@no_certificate_needed
async def test_a_new_certificate_is_shown_without_a_restart_and_streams_go_on(
    house: House, trust: Trust, ca: Authority, other_ca: Authority
) -> None:
    trust(ca)
    async with dial(house.address) as client:
        deltas: Any = aiter(client.generate("small", "fake:tokens=5000"))
        await anext(deltas)
        put(house.files, other_ca.issue("daemon"))
        assert await let_in(house) is None
        trust(other_ca)
        assert await let_in(house) == ("user", "default")
        for _ in range(3):
            await anext(deltas)
        await deltas.aclose()


@no_certificate_needed
async def test_a_broken_new_pair_leaves_the_old_one(house: House, trust: Trust, ca: Authority) -> None:
    trust(ca)
    house.files.key.write_text("junk")
    assert await let_in(house) == ("user", "default")
