"""Groups for workers, on a tree of files that stands in for the kernel's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.system import workgroups
from inferd.daemon.system.sysfs import Root
from inferd.daemon.system.workgroups import Group, Groups, find, missing

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = "sys/fs/cgroup/system.slice/inferd.service"
TREE = {
    "proc/self/cgroup": "0::/system.slice/inferd.service\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n",
    "sys/fs/cgroup/cgroup.procs": "",
    "sys/fs/cgroup/system.slice/cgroup.type": "domain",
    f"{SERVICE}/cgroup.type": "domain",
    f"{SERVICE}/cgroup.controllers": "cpu io memory pids\n",
    f"{SERVICE}/cgroup.subtree_control": "",
    f"{SERVICE}/cgroup.procs": f"{os.getpid()}\n",
}


FILES = ("cgroup.procs", "memory.max", "memory.oom.group", "pids.max", "memory.events", "cgroup.kill")

Grow = Callable[[dict[str, str]], Root]


@pytest.fixture
def grow(plant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Grow:
    """A tree in which, from then on, files come with a group that is made and go with it, as the kernel has it."""
    mkdir, rmdir = os.mkdir, os.rmdir

    def make(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        for name in FILES:
            with open(os.path.join(path, name), "w"):
                pass

    def remove(path: str) -> None:
        for name in FILES:
            os.unlink(os.path.join(path, name))
        rmdir(path)

    def grown(tree: dict[str, str]) -> Root:
        root = Root(plant("plain", tree))
        monkeypatch.setattr(os, "mkdir", make)
        monkeypatch.setattr(os, "rmdir", remove)
        return root

    return grown


@pytest.fixture
def root(grow: Grow) -> Root:
    return grow(TREE)


def said(root: Root, path: str) -> str:
    text = root.text(path)
    assert text is not None
    return text


@pytest.fixture
def groups(root: Root) -> Groups:
    it = Groups.divide(root)
    assert it.why == ""
    return it


def test_the_daemon_moves_out_of_the_way(groups: Groups, root: Root) -> None:
    assert said(root, f"{SERVICE}/supervisor/cgroup.procs") == str(os.getpid())
    assert said(root, f"{SERVICE}/cgroup.subtree_control") == "+memory +pids"


def test_a_worker_has_its_limits_before_it_is_there(groups: Groups, root: Root) -> None:
    group = groups.begin("qwen:7b@gpu0", 1 << 30, 72)
    at = f"{SERVICE}/w-qwen:7b@gpu0-1"
    limits = [said(root, f"{at}/{name}") for name in ("memory.max", "memory.oom.group", "pids.max")]
    assert limits == [str(1 << 30), "1", "72"]
    group.add(77)
    assert said(root, f"{at}/cgroup.procs") == "77"
    group.end()
    assert not root.exists(at)
    assert not group.ran_out()
    assert groups.begin("qwen:7b@gpu0", 1, 1).path.endswith("-2")


def test_one_whose_worker_is_not_there_yet_stays(groups: Groups, root: Root) -> None:
    first, second = groups.begin("a", 1, 1), groups.begin("b", 1, 1)
    first.add(77)
    assert said(root, f"{SERVICE}/w-a-1/cgroup.procs") == "77"
    first.end()
    groups.begin("c", 1, 1)
    assert root.exists(f"{SERVICE}/w-b-2")
    second.end()
    assert not root.exists(f"{SERVICE}/w-b-2")


def test_one_that_could_not_go_goes_with_the_next(groups: Groups, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    group = groups.begin("a", 1, 1)
    with monkeypatch.context() as patched:
        patched.setattr(workgroups, "_remove", lambda path: None)
        group.end()
    assert root.exists(f"{SERVICE}/w-a-1")
    groups.begin("b", 1, 1)
    assert not root.exists(f"{SERVICE}/w-a-1")


def test_an_end_for_want_of_memory_is_remembered(groups: Groups, root: Root) -> None:
    group = groups.begin("m", 1 << 20, 64)
    events = root.at(f"{SERVICE}/w-m-1/memory.events")
    for text, ran_out in (("low 0\noom 1\noom_kill 0\n", False), ("oom 1\noom_kill 2\n", True)):
        with open(events, "w") as file:
            file.write(text)
        assert group.ran_out() is ran_out
    group.end()
    assert group.ran_out()


def test_what_an_earlier_daemon_left_goes(grow: Grow) -> None:
    root = grow({**TREE, **{f"{SERVICE}/w-old-3/{name}": "" for name in FILES}})
    assert Groups.divide(root).why == ""
    assert not root.exists(f"{SERVICE}/w-old-3")


def test_one_that_was_put_into_a_part_of_it_stays_there(grow: Grow) -> None:
    changes = {"proc/self/cgroup": "0::/system.slice/inferd.service/supervisor\n", f"{SERVICE}/cgroup.procs": ""}
    changes[f"{SERVICE}/supervisor/cgroup.procs"] = f"{os.getpid()}\n"
    root = grow({**TREE, **changes})
    assert Groups.divide(root).why == ""
    assert said(root, f"{SERVICE}/cgroup.subtree_control") == "+memory +pids"
    assert said(root, f"{SERVICE}/supervisor/cgroup.procs") == str(os.getpid())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"proc/self/cgroup": "4:memory:/x\n"}, "no cgroup v2"),
        ({f"{SERVICE}/cgroup.type": None}, "root of the tree"),
        ({f"{SERVICE}/cgroup.controllers": "cpu pids"}, "no controller for memory"),
        ({f"{SERVICE}/cgroup.procs": f"{os.getpid()}\n1\n2\n"}, "2 other processes"),
        ({f"{SERVICE}/cgroup.subtree_control": None}, "not ours to divide"),
    ],
)
def test_nothing_is_touched_that_is_not_ours(grow: Grow, changes: dict[str, str | None], why: str) -> None:
    root = grow({name: text for name, text in {**TREE, **changes}.items() if text is not None})
    assert why in find(root)[1]
    groups = Groups.divide(root)
    assert why in groups.why
    assert not root.exists(f"{SERVICE}/supervisor")
    group = groups.begin("m", 1, 1)
    group.add(1)
    group.end()
    assert (group.path, group.ran_out()) == ("", False)


def test_what_the_kernel_refuses_leaves_all_as_it_was(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    real = workgroups._write

    def refuse(folder: str, name: str, value: str) -> None:
        if name == "cgroup.subtree_control":
            raise OSError(16, "busy")
        real(folder, name, value)

    monkeypatch.setattr(workgroups, "_write", refuse)
    assert Groups.divide(root).why == "it cannot be divided: busy"
    assert said(root, f"{SERVICE}/cgroup.procs") == str(os.getpid())
    assert not root.exists(f"{SERVICE}/supervisor")


def test_a_worker_goes_without_where_none_can_be_made(root: Root) -> None:
    group = Groups(root.at(f"{SERVICE}/gone"), "").begin("m", 1, 1)
    group.add(1)
    assert group.path == ""


def test_a_group_that_is_gone_is_no_trouble() -> None:
    group = Group("/no/such/group", 1)
    group.add(1)
    group.end()
    assert not group.ran_out()


@pytest.mark.parametrize(
    ("controllers", "why"),
    [("cpu memory pids\n", ""), ("cpu\n", "cgroup v2 has no controller for memory and pids here")],
)
def test_what_a_machine_can_do_for_a_service(grow: Grow, controllers: str, why: str) -> None:
    assert missing(grow({**TREE, "sys/fs/cgroup/cgroup.controllers": controllers})) == why
