"""Who gets in, as whom, and how long: by sockets, tokens and their ends."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from inferd import AsyncClient
from inferd.daemon import listen
from inferd.daemon.api import access as it
from inferd.daemon.api.access import PAUSE_S
from inferd.daemon.api.roles import ANYONE, LEAST
from inferd.daemon.domain.access import Door, Role
from inferd.daemon.node import keyring
from inferd.tests.daemon.api.doors import ENDLESS, Entrance, entrance, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from inferd import InferdError

NEVER_BEFORE = 3.0  # in s


@pytest.fixture
async def doors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Entrance]:
    monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
    async with entrance(folder) as opened:
        yield opened


async def seen(client: AsyncClient) -> tuple[str, str]:
    me = await client.whoami()
    return me.role, me.tenant


async def status_of(address: str, method: str, metadata: Any = (), timeout_s: float = 5.0) -> grpc.StatusCode:
    """Of a call with an empty message, whatever the method takes."""
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call: Any = channel.unary_unary(method, None, None)
        try:
            await call(b"", timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


# who one is


async def test_a_socket_says_what_one_may_and_the_metadata_whose_it_is(doors: Entrance) -> None:
    assert await seen(doors.dial()) == ("operator", "default")
    assert await seen(doors.dial(tenant="team-a")) == ("operator", "team-a")
    assert await seen(doors.dial("admin")) == ("admin", "default")
    error = await refused(doors.dial("needy").whoami())
    assert error.code == "unauthenticated"
    assert "token" in error.message


async def test_a_token_decides_on_every_door(doors: Entrance) -> None:
    token = await doors.token("viewer", "team-a")
    for door in ("socket", "admin", "needy"):
        assert await seen(doors.dial(door, token, tenant="team-b")) == ("viewer", "team-a")


async def test_a_token_without_a_tenant_is_its_own(doors: Entrance) -> None:
    token = await doors.token("user", name="ada")
    assert await seen(doors.dial("needy", token)) == ("user", "ada")


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer inferd_00000000_x", "bearer " + "x" * 4000]
)
async def test_whatever_is_no_token_is_refused_also_where_none_is_needed(doors: Entrance, given: str) -> None:
    method = "/inferd.v1.Monitor/WhoAmI"
    for door in ("socket", "admin", "needy"):
        status = await status_of(doors.address(door), method, (("authorization", given),))
        assert status is grpc.StatusCode.UNAUTHENTICATED


async def test_a_tenant_that_cannot_be_shown_is_refused(doors: Entrance) -> None:
    error = await refused(doors.dial(tenant="a" * 65).whoami())
    assert (error.code, error.field) == ("invalid", "inferd-tenant")


# who may what


@pytest.mark.parametrize("role", [None, *Role], ids=lambda role: role.value if role else "nobody")
async def test_each_role_is_refused_what_is_above_it(doors: Entrance, role: Role | None) -> None:
    metadata = bearer(await doors.token(role.value)) if role else ()
    expected = grpc.StatusCode.PERMISSION_DENIED if role else grpc.StatusCode.UNAUTHENTICATED
    for method, least in LEAST.items():
        if least is not ANYONE and (role is None or not role.covers(least)):
            assert await status_of(doors.address("needy"), method, metadata) is expected, method


async def test_a_refusal_names_the_role_that_is_needed(doors: Entrance) -> None:
    error = await refused(doors.dial(token=await doors.token("user")).unload("small"))
    assert (error.code, error.details) == ("permission_denied", {"needs": "operator", "role": "user"})
    assert "operator" in error.message


async def test_what_is_enough_is_let_through(doors: Entrance) -> None:
    viewer, user, operator = [doors.dial("needy", await doors.token(role)) for role in ("viewer", "user", "operator")]
    assert (await viewer.snapshot()).version
    assert [model.name for model in await viewer.models()]
    assert (await refused(viewer.generate("small", "fake:tokens=2").text())).code == "permission_denied"
    assert await user.generate("small", "fake:tokens=2").text()
    assert (await refused(user.pin("small"))).code == "permission_denied"
    assert not await operator.pin("small")
    assert (await refused(operator.tokens())).code == "permission_denied"


async def test_health_needs_nothing_and_what_nobody_knows_does_not_exist(doors: Entrance) -> None:
    needy = doors.address("needy")
    assert await status_of(needy, "/grpc.health.v1.Health/Check") is grpc.StatusCode.OK
    assert await status_of(needy, "/inference.GRPCInferenceService/ServerLive") is grpc.StatusCode.OK
    for method in ("/inferd.v1.Monitor/Nothing", "/x.Y/Z"):
        assert await status_of(doors.address("admin"), method) is grpc.StatusCode.UNIMPLEMENTED


# wrong tokens


async def test_a_wrong_token_is_answered_at_once(doors: Entrance) -> None:
    client = doors.dial("needy", "inferd_00000000_wrong")
    took_s = []
    for _ in range(5):
        start_s = time.process_time()  # of both sides: the machine may be busy with something else
        assert (await refused(client.whoami())).code == "unauthenticated"
        took_s.append(time.process_time() - start_s)
    assert min(took_s) < 0.005


async def test_who_goes_on_guessing_waits_and_others_do_not(
    doors: Entrance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)
        waiting.set()
        await go_on.wait()

    token = await doors.token("user")
    guesser, holder = doors.dial("needy", "inferd_00000000_wrong"), doors.dial("needy", token)
    for _ in range(10):
        await refused(guesser.whoami())
    monkeypatch.setattr(it, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    late = asyncio.create_task(refused(guesser.whoami()))
    await waiting.wait()
    assert await seen(holder) == ("user", "a user")
    assert not late.done()
    go_on.set()
    assert (await late).code == "unauthenticated"
    await refused(guesser.whoami())
    assert waits == [PAUSE_S] * 2 == [1.0] * 2
    assert caplog.text.count("wrong tokens a minute from unix:") == 1


# the end of a token


async def begun(client: AsyncClient) -> Any:
    """An answer under way."""
    deltas = aiter(client.generate("small", ENDLESS))
    await anext(deltas)
    return deltas


async def end_of(deltas: Any) -> InferdError:
    async def rest() -> None:
        async for _ in deltas:
            pass

    return await refused(asyncio.wait_for(rest(), NEVER_BEFORE))


async def test_a_token_that_is_revoked_ends_its_calls_and_no_others(doors: Entrance) -> None:
    token = await doors.token("user", name="ada")
    gone, stays = await begun(doors.dial("needy", token)), await begun(doors.dial(tenant="other"))
    watching = aiter(doors.dial("needy", token).watch())
    await anext(watching)
    assert await doors.dial("admin").revoke_token("ada")
    for stream in (gone, watching):
        error = await end_of(stream)
        assert error.code == "unauthenticated"
        assert "revoked" in error.message
    assert (await refused(doors.dial("needy", token).whoami())).code == "unauthenticated"
    await anext(stays)
    assert {job.request.tenant for job in doors.node.jobs if job.live} == {"other"}
    await stays.aclose()


async def test_who_revokes_its_own_token_is_answered(doors: Entrance) -> None:
    token = await doors.token("admin", name="root")
    client = doors.dial("needy", token)
    assert await client.revoke_token("root")
    assert (await refused(client.whoami())).code == "unauthenticated"


async def test_the_end_of_a_token_ends_its_calls(doors: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "TTL_S", (0.0, 10.0))
    token = await doors.token("user", ttl_s=3.0)  # the model is loaded in that time
    error = await end_of(await begun(doors.dial("needy", token)))
    assert (error.code, error.message) == ("unauthenticated", "this token has expired")
    assert (await refused(doors.dial("needy", token).whoami())).message == "this token has expired"


async def test_what_is_over_is_not_remembered(doors: Entrance) -> None:
    token = await doors.token("user", ttl_s=600.0)
    client = doors.dial("needy", token)
    for _ in range(3):
        await client.whoami()
    await asyncio.sleep(0)
    assert doors.node.keyring.on_revoked.__self__._live == {}  # type: ignore[attr-defined]


# whose requests


async def test_a_user_sees_to_its_own_requests_only(doors: Entrance) -> None:
    ada, bob = [doors.dial("needy", await doors.token("user", tenant)) for tenant in ("ada", "bob")]
    stream = ada.generate("small", ENDLESS, request_id="r")
    deltas = aiter(stream)
    await anext(deltas)
    assert not await bob.cancel("r")
    assert not await bob.set_priority("r", "batch")
    assert (await refused(bob.explain("r"))).code == "not_found"
    assert await ada.explain("r")
    assert await ada.set_priority("r", "batch")
    assert await ada.cancel("r")
    assert (await end_of(deltas)).code == "cancelled"


async def test_an_operator_sees_to_everybodys(doors: Entrance) -> None:
    ada = doors.dial("needy", await doors.token("user", "ada"))
    deltas = aiter(ada.generate("small", ENDLESS, request_id="r"))
    await anext(deltas)
    operator = doors.dial(tenant="ops")
    assert await operator.explain("r")
    assert await operator.set_priority("r", "batch")
    assert await operator.cancel("r")
    assert (await end_of(deltas)).code == "cancelled"


async def test_a_viewer_gets_no_reasons_of_others(doors: Entrance) -> None:
    ada = doors.dial("needy", await doors.token("user", "ada"))
    await ada.generate("small", "fake:tokens=1", request_id="r").text()
    viewer, own = [doors.dial("needy", await doors.token("viewer", tenant)) for tenant in ("bob", "ada")]
    assert (await refused(viewer.explain("r"))).code == "not_found"
    assert await own.explain("r")


# sockets


async def test_a_socket_that_is_removed_comes_back_and_who_is_connected_stays(
    doors: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "LOOK_S", 0.01)
    keeping = asyncio.create_task(doors.doors.keep())
    deltas = await begun(doors.dial())
    path = doors.address("socket").removeprefix("unix:")
    os.unlink(path)
    async with AsyncClient(doors.address("socket"), connect_timeout_s=NEVER_BEFORE) as another:
        assert await seen(another) == ("operator", "default")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    await anext(deltas)
    await deltas.aclose()
    keeping.cancel()


async def test_a_daemon_that_ends_opens_nothing_again(doors: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "LOOK_S", 0.01)
    keeping = asyncio.create_task(doors.doors.keep())
    await doors.doors.close(None)
    async with asyncio.timeout(30):
        await keeping
    with pytest.raises(FileNotFoundError):
        os.stat(doors.address("socket").removeprefix("unix:"))


@pytest.mark.parametrize(("role", "tenant"), [(Role.OPERATOR, "ada"), (Role.USER, "default"), (Role.VIEWER, "default")])
def test_who_may_see_its_own_tenant_only_cannot_say_which_that_is(role: Role, tenant: str) -> None:
    way_in = it.Access(Door("tcp", "127.0.0.1:1", role), SimpleNamespace())  # type: ignore[arg-type]
    assert way_in._principal(None, "ada")[0].tenant == tenant
