"""The parts of the package that need no build; tests/packaging/test_boot.py has the rest."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.daemon.system.settings import load_config
from inferd.tests.packaging.scripts import script

if TYPE_CHECKING:
    import pytest

deb = script("deb")
ROOT = Path(__file__).parents[2]


def test_the_packaged_config_is_the_default_one_with_a_folder_for_models(tmp_path: Path) -> None:
    text = deb.packaged_config((ROOT / "packaging" / "inferd.toml").read_text())
    (tmp_path / "inferd.toml").write_text(text)
    config = load_config(tmp_path / "inferd.toml")
    assert config.models.folders == ("/var/lib/inferd/models",)
    assert config.server == load_config(None).server  # a Unix socket, and nothing on the network
    made = [line for line in (ROOT / "packaging/systemd/tmpfiles.conf").read_text().splitlines() if deb.MODELS in line]
    assert len(made) == 1


def test_the_files_of_one_commit_have_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert deb.epoch_s() == 1_700_000_000
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert deb.epoch_s() > 1_700_000_000


def test_the_package_is_for_the_python_that_its_libraries_were_built_for() -> None:
    minor = sys.version_info.minor
    assert deb.depends()[:2] == [f"python3 (>= 3.{minor})", f"python3 (<< 3.{minor + 1})"]


def test_what_is_written_has_neither_our_times_nor_our_modes(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        deb.put(tmp_path, "a/b/text", "x")
        deb.put_gzip(tmp_path, "a/zipped.gz", "x")
        deb.put(tmp_path, "etc/secret", "", 0o600)
        deb.put(tmp_path, "a/run", "", 0o700)
        deb.link(tmp_path, "a/link", "b/text")
        deb.settle(tmp_path, 1_700_000_000)
    finally:
        os.umask(before)
    times = {path.lstat().st_mtime for path in tmp_path.rglob("*")}
    assert times == {1_700_000_000}
    modes = {path.name: path.lstat().st_mode & 0o777 for path in tmp_path.rglob("*") if not path.is_symlink()}
    folders = dict.fromkeys(("a", "b", "etc"), 0o755)
    assert modes == {**folders, "text": 0o644, "zipped.gz": 0o644, "run": 0o755, "secret": 0o600}
    assert gzip.decompress((tmp_path / "a/zipped.gz").read_bytes()) == b"x"
    assert (tmp_path / "a/zipped.gz").read_bytes()[4:8] == bytes(4)  # no time inside


def test_the_maintainer_scripts_are_shell() -> None:
    scripts = [*(ROOT / "packaging" / "debian").glob("p*"), ROOT / "packaging" / "systemd" / "prepare-devices"]
    assert len(scripts) == 4
    for path in scripts:
        assert os.access(path, os.X_OK), path
        subprocess.run(["sh", "-n", path], check=True)
