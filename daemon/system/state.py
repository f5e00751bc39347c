"""The state folder: small JSON files that outlive the daemon. Losing one costs comfort, never a start."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

FOLDER_MODE = 0o700
MAX_BYTES = 16 << 20  # of one file; what is longer was not written by us
UNFINISHED = ".new"
ABANDONED_S = 3600.0  # so old, what is unfinished is not another daemon's that writes just now


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """$STATE_DIRECTORY, which systemd sets, else $XDG_STATE_HOME/inferd, else ~/.local/state/inferd."""
    if given := environ.get("STATE_DIRECTORY", "").partition(":")[0]:  # systemd lists several with colons
        return Path(given)
    home = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # a relative one is to be ignored, says the XDG standard
        home = os.path.join(environ.get("HOME") or "/", ".local", "state")
    return Path(home) / "inferd"


def load_json(name: str, folder: Path | None = None) -> Any:
    """What `save_json` kept under this name; None when there is none, or none that can be read."""
    path = (folder or state_folder()) / f"{name}.json"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return msgspec.json.decode(raw)
    except FileNotFoundError:
        log.info("%s is not there; starting without it", path)
    except OSError as error:
        log.warning("%s cannot be read (%s); starting without it", path, error.strerror)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        log.warning("%s is damaged (%s); starting without it", path, error)
    return None


def save_json(name: str, value: Any, folder: Path | None = None) -> bool:
    """Replace the file as a whole, mode 0600; waits for the disk. False, with a line in the log, when it cannot be."""
    raw = msgspec.json.format(msgspec.json.encode(value), indent=1)
    path = (folder or state_folder()) / f"{name}.json"
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        _replace(path, raw)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror)
        return False
    return True


def _replace(path: Path, raw: bytes) -> None:
    """Either the old bytes or the new ones are there, whenever the power fails."""
    fd, unfinished = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=UNFINISHED, dir=path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
    folder_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def sweep(folder: Path | None = None) -> None:
    """Remove what daemons that were killed have left half written."""
    with contextlib.suppress(OSError):
        for path in (folder or state_folder()).glob(f".*-*{UNFINISHED}"):
            if time.time() - path.lstat().st_mtime > ABANDONED_S:
                path.unlink()
