"""Facts are frozen, and travel as JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict

import pytest

from inferd.daemon.domain.device import Device, DeviceKind, DeviceNode, Reading

CARD = Device("gpu0", DeviceKind.GPU, "amd", "Radeon", nodes=(DeviceNode("/dev/kfd", False, "render"),))


def test_a_device_as_json() -> None:
    told = json.loads(json.dumps(asdict(CARD)))
    assert (told["kind"], told["state"], told["memory_total_bytes"]) == ("gpu", "ok", None)
    assert told["nodes"] == [{"path": "/dev/kfd", "accessible": False, "group": "render"}]


def test_a_reading_without_sensors_is_all_none() -> None:
    told = asdict(Reading("gpu0"))
    missing = {key for key, value in told.items() if value is None}
    assert missing == set(told) - {"device_id", "state", "throttled_by", "processes"}


def test_facts_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        CARD.name = "another"  # type: ignore[misc]
