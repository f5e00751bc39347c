"""The pictures of the README, made from a real run; `python packaging/screenshots.py` writes them anew."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from demo import MODEL, daemon

from inferd import Client, InferdError
from inferd.tui.app import Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.protos import inferd_pb2 as pb

FOLDER = Path(__file__).with_name("screenshots")
LARGE, SMALL = (150, 44), (100, 28)
WATCHED_S = 60.0  # of history in the charts
N_STREAMS = 20
TENANTS = ("ide", "web", "nightly", "alice")
CLASSES = ("interactive", "normal", "batch")


class Anonymous(Monitor):
    """The run is real; whose machine it was is nobody's business."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = "unix:/run/inferd/inferd.sock"

    def heard_snapshot(self, snapshot: pb.Snapshot) -> None:
        snapshot.host.name = "workstation"
        super().heard_snapshot(snapshot)


@contextlib.contextmanager
def busy(address: str) -> Iterator[None]:
    """People, an agent and a nightly job at once."""
    over = threading.Event()

    def ask(i: int) -> None:
        draw = random.Random(i)
        with Client(address, tenant=TENANTS[i % len(TENANTS)]) as client:
            while not over.is_set():
                with contextlib.suppress(InferdError):
                    options = {"max_tokens": draw.randint(100, 900), "priority": CLASSES[i % 3], "ignore_eos": True}
                    for _ in client.generate(MODEL, "Tell me a story", **options):  # type: ignore[arg-type]
                        if over.is_set():
                            break
                over.wait(draw.uniform(0, 3))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(N_STREAMS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


async def picture(address: str, size: tuple[int, int], name: str, *keys: str) -> None:
    app = Anonymous(address)
    async with app.run_test(size=size) as pilot:
        await asyncio.sleep(WATCHED_S)
        for key in keys:
            await pilot.press(key)
            await asyncio.sleep(1.0)
        svg = app.export_screenshot(title="inferd top")
    # Whoever looks at the README needs no fonts from elsewhere.
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    (FOLDER / f"{name}.svg").write_text(re.sub(r"[ \t]+\n", "\n", svg))


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inferd-pictures-")))
        address = stack.enter_context(daemon(folder, folder / "log"))
        stack.enter_context(busy(address))
        asyncio.run(picture(address, LARGE, "overview"))
        asyncio.run(picture(address, SMALL, "queue", "2", "down", "down"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
