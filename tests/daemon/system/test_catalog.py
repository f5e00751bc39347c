"""What a folder of models offers, and what it must never do."""

from __future__ import annotations

import os
import socket
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends import kinds
from inferd.backends.facts import CorruptModel
from inferd.daemon.system import catalog
from inferd.daemon.system.catalog import Catalog, as_name, valid_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def put(gguf: Any) -> Callable[[Path], Path]:
    data = gguf.small().build()

    def put(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return put


def names(*folders: Path) -> list[str]:
    return list(Catalog(folders).scan())


def test_an_entry(folder: Path, put: Any) -> None:
    path = put(folder / "Qwen2.5-0.5B.Q8_0.gguf")
    entries = Catalog([folder]).scan()
    entry = entries["qwen2.5-0.5b.q8_0"]
    assert entry.facts is not None
    assert (entry.facts.path, entry.facts.n_layers, entry.error) == (str(path), 2, None)
    status = path.stat()
    assert (entry.file_bytes, entry.mtime_ns) == (status.st_size, status.st_mtime_ns)
    with pytest.raises(FrozenInstanceError):
        entry.name = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        entries["x"] = entry  # type: ignore[index]


def test_no_folder_no_models(tmp_path: Path) -> None:
    assert names() == []
    assert names(tmp_path / "gone") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen2.5-0.5B", "qwen2.5-0.5b"),
        ("a b\nc", "a-b-c"),
        ("..", "model"),
        ("-_.x", "x"),
        ("модель", "model"),
        ("m:7b", "m-7b"),
        ("x" * 300, "x" * 128),
        ("../../etc/passwd", "etc-passwd"),
        ("caf\udce9", "caf"),
    ],
)
def test_names_of_files(text: str, name: str) -> None:
    assert as_name(text) == name
    assert valid_name(name)


@pytest.mark.parametrize("name", ["a", "qwen2.5:7b", "a" * 128, "a:" + "t" * 64, "0"])
def test_names_that_may_be_asked_for(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../a", "/a", "a/b", "%2e%2e", "a\0", "a\n", "\na", "A", "-a", "a:", "a:b:c", "a b"),
        *("a" * 129, "a" * 4096, "a:" + "t" * 65, "\N{CYRILLIC SMALL LETTER A}"),
    ],
)
def test_names_that_may_not(name: str) -> None:
    assert not valid_name(name)


def test_a_folder_with_one_model_names_it(folder: Path, put: Any) -> None:
    put(folder / "Tiny" / "model.gguf")
    put(folder / "Two" / "a.gguf")
    put(folder / "Two" / "b.gguf")
    put(folder / "hub" / "snapshots" / ("0f" * 20) / "c.gguf")
    assert sorted(names(folder)) == ["a", "b", "c", "tiny"]


def test_hidden_files_and_other_files_are_left_alone(folder: Path, put: Any) -> None:
    put(folder / ".partial.gguf")
    put(folder / ".cache" / "x.gguf")
    put(folder / "readme.txt")
    assert names(folder) == []


def test_folders_are_not_followed_for_ever(folder: Path, put: Any) -> None:
    put(folder.joinpath(*"abcdefgh") / "deep.gguf")
    put(folder.joinpath(*"abcdefghi") / "deeper.gguf")
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    assert names(folder) == ["h"]


def test_a_corrupt_file_is_listed_with_its_error(folder: Path, put: Any) -> None:
    put(folder / "good.gguf")
    bad = put(folder / "bad.gguf")
    os.truncate(bad, bad.stat().st_size - 40)
    (folder / "empty.gguf").touch()
    entries = Catalog([folder]).scan()
    assert set(entries) == {"good", "bad", "empty"}
    assert entries["bad"].facts is None
    assert (entries["bad"].error or "").startswith("truncated: tensor blk.1.ffn_norm.weight ends at byte")
    assert str(folder) not in (entries["empty"].error or str(folder))


def test_the_first_of_two_equal_names_wins(tmp_path: Path, put: Any) -> None:
    first, second = put(tmp_path / "1" / "a b.gguf"), put(tmp_path / "2" / "a-b.gguf")
    put(tmp_path / "2" / "A-B-2.gguf")
    entries = Catalog([first.parent, second.parent]).scan()
    assert list(entries) == ["a-b", "a-b-2", "a-b-3"]
    facts = entries["a-b"].facts
    assert facts is not None
    assert facts.path == str(first)
    assert entries["a-b-2"].error is None
    assert entries["a-b-3"].error == "another model is already called 'a-b'; rename this file"
    assert entries["a-b-3"].facts is None


def test_a_folder_given_twice_is_one(folder: Path, put: Any) -> None:
    put(folder / "a.gguf")
    assert names(folder, folder) == ["a"]


def test_the_demo_cannot_be_replaced(folder: Path, tmp_path: Path, put: Any) -> None:
    bundled = put(tmp_path / "package" / "bundled.gguf")
    put(folder / "demo.gguf")
    entries = Catalog([folder], bundled).scan()
    assert list(entries) == ["demo", "demo-2"]
    facts = entries["demo"].facts
    assert facts is not None
    assert facts.path == str(bundled)
    assert entries["demo-2"].error
    assert names(folder) == ["demo"]
    assert Catalog([], tmp_path / "gone.gguf").scan() == {}


def test_unchanged_files_are_read_once(folder: Path, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bad = put(folder / "a.gguf"), folder / "bad.gguf"
    bad.touch()
    reads: list[str] = []
    real = kinds.read_facts

    def counted(path: str) -> Any:
        reads.append(os.path.basename(path))
        return real(path)

    monkeypatch.setattr(catalog, "read_facts", counted)
    models = Catalog([folder])
    assert models.scan() == models.scan()
    assert reads == ["a.gguf", "bad.gguf"]
    os.utime(path, ns=(0, 1))
    assert models.scan()["a"].mtime_ns == 1
    path.rename(folder / "b.gguf")
    bad.unlink()
    assert set(models.scan()) == {"b"}
    put(folder / "new.gguf")
    (folder / "new.gguf").replace(folder / "b.gguf")  # another inode under the same name
    models.scan()
    assert reads[2:] == ["a.gguf", "b.gguf", "b.gguf"]


def test_only_regular_files_count(folder: Path) -> None:
    os.mkfifo(folder / "pipe.gguf")
    (folder / "folder.gguf").mkdir()
    (folder / "null.gguf").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path may have 107 bytes only
        try:
            bound.bind("socket.gguf")
        finally:
            os.chdir(here)
        assert names(folder) == []


def test_links_may_not_lead_out(folder: Path, tmp_path: Path, put: Any) -> None:
    outside = put(tmp_path / "outside" / "secret.gguf")
    put(tmp_path / "models-private" / "m.gguf")
    (folder / "a.gguf").symlink_to(outside)
    (folder / "b.gguf").symlink_to("../outside/secret.gguf")
    (folder / "c.gguf").symlink_to("../models-private/m.gguf")
    (folder / "d").symlink_to(outside.parent, target_is_directory=True)
    (folder / "e.gguf").symlink_to("d/secret.gguf")
    (folder / "f.gguf").symlink_to("f.gguf")
    (folder / "g.gguf").symlink_to("gone.gguf")
    entries = Catalog([folder]).scan()
    told = {name: entry.error for name, entry in entries.items()}
    assert told == {
        "a": f"is {catalog.OUTSIDE}",  # and not b and e, which lead to the same file
        "c": f"is {catalog.OUTSIDE}",
    }
    assert all(entry.facts is None for entry in entries.values())


def test_links_may_lead_from_one_folder_to_another(folder: Path, tmp_path: Path, put: Any) -> None:
    there = put(tmp_path / "store" / "m.gguf")
    (folder / "a.gguf").symlink_to(there)
    entries = Catalog([folder, there.parent]).scan()
    assert list(entries) == ["a"]
    facts = entries["a"].facts
    assert facts is not None
    assert facts.files == (str(there),)


def test_links_inside_the_folder_are_followed(folder: Path, put: Any) -> None:
    put(folder / "hub" / "blobs" / "0f0f")
    snapshot = folder / "hub" / "snapshots" / "main" / "m.gguf"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to("../../blobs/0f0f")
    entry = Catalog([folder]).scan()["main"]
    assert entry.error is None
    assert entry.facts is not None


def test_a_linked_folder_of_models_is_fine(folder: Path, tmp_path: Path, put: Any) -> None:
    put(folder / "a.gguf")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert names(tmp_path / "link") == ["a"]


def test_hard_links_are_refused(folder: Path, tmp_path: Path, put: Any) -> None:
    os.link(put(tmp_path / "outside.gguf"), folder / "a.gguf")
    entry = Catalog([folder]).scan()["a"]
    assert (entry.facts, entry.error) == (
        None,
        "has more than one hard link; copy it into the folder instead",
    )


def test_a_file_name_that_is_not_utf8(folder: Path, put: Any) -> None:
    put(folder / "caf\udce9.gguf")
    assert Catalog([folder]).scan()["caf"].error == "has a file name that cannot be shown; rename it"


def test_parts_are_one_model(folder: Path, gguf: Any) -> None:
    whole = gguf.small()
    tensors = list(whole.tensors.items())
    for no in range(2):
        part = gguf()
        part.keys = (whole.keys if no == 0 else {}) | {"split.no": gguf.u32(no), "split.count": gguf.u32(2)}
        part.tensors = dict(tensors[no::2])
        (folder / f"Big-{no + 1:05}-of-00002.gguf").write_bytes(part.build())
    models = Catalog([folder])
    entry = models.scan()["big"]
    assert len(models.scan()) == 1
    assert entry.error is None
    assert entry.facts is not None
    assert entry.file_bytes == entry.facts.file_bytes == sum(p.stat().st_size for p in folder.iterdir())
    (folder / "Big-00002-of-00002.gguf").unlink()
    assert models.scan()["big"].error == "part 2 of 2 is missing"


def test_a_flood_of_files_is_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MAX_MODELS", 5)
    for i in range(9):
        (folder / f"m{i}.gguf").touch()
    assert len(names(folder)) == 5
    monkeypatch.setattr(catalog, "MAX_ENTRIES", 3)
    assert len(names(folder)) <= 3


def test_a_file_that_vanishes_while_it_is_read(folder: Path, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "a.gguf")

    def gone(path: str) -> Any:
        os.unlink(path)
        raise CorruptModel("cannot be read: No such file or directory")

    monkeypatch.setattr(catalog, "read_facts", gone)
    models = Catalog([folder])
    assert (models.scan()["a"].error or "").startswith("cannot be read")
    assert models.scan() == {}


@pytest.fixture
def lora(gguf: Any) -> bytes:
    file = gguf()
    file.keys = {"general.type": gguf.string("adapter"), "adapter.type": gguf.string("lora")}
    file.keys["general.architecture"] = gguf.string("llama")
    file.tensors = {"blk.0.attn_q.weight.lora_a": ((64, 4), 0)}
    return bytes(file.build())


def test_adapters_lie_below_a_folder(folder: Path, tmp_path: Path, put: Any, lora: bytes) -> None:
    put(folder / "m.gguf")
    (folder / "lora").mkdir()
    path = folder / "lora" / "a.gguf"
    path.write_bytes(lora)
    it = Catalog([tmp_path / "none", folder])
    facts = it.scan()["m"].facts
    assert facts is not None
    (found,) = it.adapters({"a": "lora/a.gguf"}, facts)
    assert (found.name, found.path, found.n_bytes) == ("a", str(path), 1024)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    (again,) = it.adapters({"a": "lora/a.gguf"}, facts)
    assert again.version != found.version
    assert it.adapters({}, facts) == ()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("../outside.gguf", "no such file"),
        ("{outside}", "no such file"),
        ("link.gguf", "no such file"),
        ("none.gguf", "no such file"),
        ("a\0b", "no such file"),
        (".", "no such file"),
        ("hard.gguf", "hard link"),
        ("m.gguf", "must say that it is a LoRA adapter"),
    ],
)
def test_and_nowhere_else(folder: Path, tmp_path: Path, put: Any, lora: bytes, said: str, why: str) -> None:
    put(folder / "m.gguf")
    outside = tmp_path / "outside.gguf"
    outside.write_bytes(lora)
    (folder / "link.gguf").symlink_to(outside)
    os.link(outside, folder / "hard.gguf")
    it = Catalog([folder])
    facts = it.scan()["m"].facts
    assert facts is not None
    with pytest.raises(CorruptModel, match=f"adapter 'a': .*{why}"):
        it.adapters({"a": said.format(outside=outside)}, facts)
