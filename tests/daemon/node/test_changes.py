"""A wake-up reaches everybody who waits, once, and nothing is kept for those who come later."""

from __future__ import annotations

import asyncio

from inferd.daemon.node.changes import Changes


async def turn() -> None:
    """Let everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_wait_are_woken() -> None:
    changes = Changes()
    waiting = [asyncio.create_task(changes.wait()) for _ in range(3)]
    await turn()
    assert not any(task.done() for task in waiting)
    changes.notify()
    await asyncio.gather(*waiting)


async def test_who_comes_after_a_change_waits_for_the_next() -> None:
    changes = Changes()
    changes.notify()
    late = asyncio.create_task(changes.wait())
    await turn()
    assert not late.done()
    changes.notify()
    await late


async def test_one_who_gives_up_takes_nobody_with_him() -> None:
    changes = Changes()
    impatient, patient = asyncio.create_task(changes.wait()), asyncio.create_task(changes.wait())
    await turn()
    impatient.cancel()
    await turn()
    assert not patient.done()
    changes.notify()
    await patient


async def test_a_change_between_looking_and_waiting_is_not_lost() -> None:
    changes = Changes()
    change = changes.next()
    changes.notify()
    await change
    assert not changes.next().done()
