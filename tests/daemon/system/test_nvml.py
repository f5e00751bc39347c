"""The NVIDIA library in all its moods: the real binding on a false library, in its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.device import DeviceState
from inferd.daemon.system import nvml

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]

MIB = 1 << 20
OPEN = """
from inferd.daemon.system.nvml import Nvml, query
from inferd.daemon.domain.device import Device, DeviceKind, DeviceState
def known(count):
    return [Device(f'gpu{n}', DeviceKind.GPU, 'nvidia', 'bus', DeviceState.NO_LIBRARY, pci=f'0000:{n + 1:02x}:00.0',
                   driver='nvidia') for n in range(count)]
"""
DESCRIBE = "answer([asdict(device) for device in Nvml().describe(known({known}))])"


def test_two_good_gpus(with_nvml: Run) -> None:
    first, second = with_nvml(OPEN + "world('gpus 2')\n" + DESCRIBE.format(known=2))
    assert (first["id"], first["pci"], first["state"], first["detail"]) == ("gpu0", "0000:01:00.0", "ok", None)
    assert (first["name"], first["architecture"], first["driver_version"]) == ("NVIDIA Fake 80GB", "9.0", "575.57.08")
    assert (first["memory_total_bytes"], first["memory_reserved_bytes"]) == (81920 * MIB, 512 * MIB)
    assert (first["pcie_width"], first["mig"]) == (16, False)
    assert second["uuid"] == "GPU-00000002-0000-0000-0000-000000000000"


def test_gpus_that_the_bus_does_not_show(with_nvml: Run) -> None:
    devices = with_nvml(OPEN + "world('gpus 2')\n" + DESCRIBE.format(known=0))
    assert [(device["id"], device["pci"]) for device in devices] == [
        ("gpu0", "0000:01:00.0"),
        ("gpu1", "0000:02:00.0"),
    ]


@pytest.mark.parametrize(
    ("rc", "state"), [(9, "no_driver"), (18, "mismatch"), (4, "failed"), (12, "no_library"), (999, "failed")]
)
def test_a_library_that_does_not_open(with_nvml: Run, rc: int, state: str) -> None:
    devices = with_nvml(OPEN + f"world('gpus 1\\ninit {rc}')\n" + DESCRIBE.format(known=1))
    assert [device["state"] for device in devices] == [state]
    assert devices[0]["detail"]
    (nameless,) = with_nvml(OPEN + f"world('init {rc}')\n" + DESCRIBE.format(known=0))
    assert (nameless["id"], nameless["state"]) == ("gpu0", state)


def test_no_library(with_nvml: Run) -> None:
    devices = with_nvml(OPEN + DESCRIBE.format(known=1), library=False)  # nor the machine's own
    assert (devices[0]["state"], devices[0]["detail"]) == ("no_library", "present, driver library missing")


def test_a_gpu_lost_before_we_looked(with_nvml: Run) -> None:
    world = "world('gpus 3\\ngpu 1 15')\n"
    states = [device["state"] for device in with_nvml(OPEN + world + DESCRIBE.format(known=3))]
    assert states == ["ok", "lost", "ok"]
    unseen = with_nvml(OPEN + world + DESCRIBE.format(known=0))
    assert [(device["id"], device["state"]) for device in unseen] == [("gpu0", "ok"), ("gpu2", "ok"), ("gpu1", "lost")]


def test_mig_instances_are_devices_of_their_own(with_nvml: Run) -> None:
    script = OPEN + "world('gpus 1\\nmig 0 2')\nlibrary = Nvml()\ndevices = library.describe(known(1))\n"
    script += "answer([[asdict(device), asdict(library.read(device))] for device in devices])"
    (whole, _), (first, reading), (second, _) = with_nvml(script)
    assert (whole["mig"], first["parent"], first["mig"]) == (True, "gpu0", None)
    assert [first["id"], second["id"]] == ["gpu0.mig0", "gpu0.mig1"]
    assert (second["uuid"], second["memory_total_bytes"]) == ("MIG-0-1", 10240 * MIB)
    assert (reading["total_bytes"], reading["utilization"]) == (10240 * MIB, None)


def test_a_gpu_that_answers_but_waits_for_a_reset(with_nvml: Run) -> None:
    devices = with_nvml(OPEN + "world('gpus 2\\naction 0 1\\naction 1 3')\n" + DESCRIBE.format(known=2))
    assert [device["state"] for device in devices] == ["reset_required", "ok"]


READ = OPEN + "world('gpus 2\\nprocs 0 3')\nlibrary = Nvml()\ndevices = library.describe(known(2))\n"


def test_a_reading(with_nvml: Run) -> None:
    (reading,) = with_nvml(READ + "answer([asdict(library.read(devices[0]))])")
    assert reading == {
        "device_id": "gpu0",
        "state": "ok",
        "used_bytes": 1024 * MIB,
        "free_bytes": (81920 - 512 - 1024) * MIB,
        "total_bytes": 81920 * MIB,
        "utilization": 0.37,
        "temperature_celsius": 55,
        "power_watts": 123.456,
        "power_limit_watts": 700.0,
        "energy_joules": 5000.0,
        "clock_mhz": 1500,
        "clock_max_mhz": 1980,
        "memory_clock_mhz": 2619,
        "throttled_by": ["power_cap", "thermal_software"],  # by the old name: the new one is missing
        "processes": [[1000, MIB], [1001, None], [1002, 3 * MIB]],
        "detail": None,
    }


def test_one_gpu_is_lost_and_returns_while_the_other_works_on(with_nvml: Run) -> None:
    script = READ + (
        "def states(): return [library.read(device).state for device in devices]\n"
        "seen = [states()]\n"
        "for rc in (15, 16, 0):\n"
        "    world(f'gpus 2\\ngpu 0 {rc}')\n"
        "    seen.append(states())\n"
        "answer(seen)"
    )
    assert with_nvml(script) == [["ok", "ok"], ["lost", "ok"], ["reset_required", "ok"], ["ok", "ok"]]


@pytest.mark.parametrize("between", ["gpus 2\\ngpu 0 15", "gpus 2\\nepoch 1"])
def test_a_gpu_that_returned_is_asked_by_a_new_handle(with_nvml: Run, between: str) -> None:
    script = READ + (
        f"library.read(devices[0])\nworld('{between}')\nlibrary.read(devices[0])\n"
        "world('gpus 2\\nepoch 1')\nanswer(library.read(devices[0]).used_bytes)"
    )
    assert with_nvml(script) == 1024 * MIB


def test_a_driver_restarted_under_us(with_nvml: Run) -> None:
    script = READ + (
        "library.read(devices[0])\n"
        "world('gpus 2\\ngpu 0 1')\n"
        "before = library.read(devices[0]).state\n"
        "world('gpus 2')\n"
        "closed = library.read(devices[0]).state\n"
        "assert library.reopen() is None\n"
        "answer([before, closed, library.read(devices[0]).state])"
    )
    assert with_nvml(script) == ["failed", "failed", "ok"]


def test_leaving_does_not_wait_for_a_driver_that_hangs(with_nvml: Run) -> None:
    script = READ + (
        "import threading, time\nfrom inferd.daemon.system import nvml\nnvml.CLOSE_LIMIT_S = 0.05\n"
        "world('gpus 2\\nhang 0 1')\n"
        "threading.Thread(target=library.read, args=(devices[0],), daemon=True).start()\n"
        "while not library._lock.locked(): time.sleep(0.001)\n"
        "library.close()\nanswer('left')"
    )
    assert with_nvml(script) == "left"


def test_an_old_driver_is_asked_in_its_own_words(with_nvml: Run) -> None:
    script = READ + "world('gpus 2\\nprocs 0 1\\nnov3 1\\nnov2memory 1')\nanswer(asdict(library.read(devices[0])))"
    reading = with_nvml(script)
    assert reading["used_bytes"] == (512 + 1024) * MIB  # the first version counts what is reserved as used
    assert reading["processes"] == [[1000, MIB]]


def test_a_function_that_the_library_lacks(with_nvml: Run) -> None:
    script = OPEN + "world('gpus 1')\nNvml()\nanswer([query('nvmlSystemGetNVMLVersion').error, query('nvmlNo').error])"
    assert with_nvml(script) == [nvml.FUNCTION_MISSING, nvml.FUNCTION_MISSING]


def test_a_handle_is_kept_and_dropped_on_close(with_nvml: Run) -> None:
    script = READ + "library.close()\nanswer([library.error, library.read(devices[0]).state])"
    assert with_nvml(script) == [nvml.NOT_INITIALISED, "failed"]


def test_every_known_error_has_words() -> None:
    assert nvml.state_of(None) == (DeviceState.OK, None)
    assert nvml.state_of(77) == (DeviceState.FAILED, "the driver library answered with error 77")
    assert all(detail for _, detail in nvml.STATES.values())
