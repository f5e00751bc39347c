"""`inferd doctor`: what this machine has and what keeps it from serving; needs no daemon."""

from typing import Any

from .common import AsJson, console, guarded, print_json, print_table, printable, size


@guarded
def doctor(as_json: AsJson = False) -> None:
    """Look at this machine: processor, memory, devices, engines, and what to do about them."""
    from ..system.doctor import report
    from ..system.hardware import survey

    found = report(survey())
    if as_json:
        print_json(found)
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """The report as people see it."""
    out = console()
    facts = [*_cpu(found["cpu"]), *_memory(found["memory"]), *_backends(found["backends"])]
    facts += _sandbox(found["sandbox"])
    print_table(("", ""), facts, header=False)
    out.print()
    columns = ("device", "kind", "name", "state", ">memory", "driver", "used by")
    print_table(columns, [_device(device) for device in found["devices"]])
    out.print()
    if not found["advice"]:
        out.print("nothing to mend")
    for advice in found["advice"]:
        out.print(printable(f"{advice['severity']}: {advice['message']}"))
        if advice["remedy"]:
            # A remedy is often a command: it must survive copying, so it is never wrapped.
            out.print(printable(f"  {advice['remedy']}"), soft_wrap=True)


def _cpu(cpu: dict[str, Any]) -> list[tuple[str, str]]:
    cores = f"{cpu['physical_cores']} cores, {cpu['logical_cores']} threads"
    allowed = f"{cpu['cores_allowed']} usable here, {cpu['threads']} for an engine"
    return [("cpu", f"{cpu['model']} ({cores}; {allowed})"), ("simd", ", ".join(cpu["simd"]) or "-")]


def _memory(memory: dict[str, Any]) -> list[tuple[str, str]]:
    text = f"{size(memory['available_bytes'])} available of {size(memory['total_bytes'])}"
    if memory["limit_bytes"] is not None:
        text += f", limited to {size(memory['limit_bytes'])}"
    return [("memory", text)]


def _sandbox(sandbox: dict[str, Any] | None) -> list[tuple[str, str]]:
    if sandbox is None:
        return []
    landlock = f"Landlock {sandbox['landlock']}" if sandbox["landlock"] else "no Landlock"
    groups = f"no cgroups: {sandbox['cgroup']}" if sandbox["cgroup"] else "cgroups, in a service"
    return [("sandbox", f"{landlock}, {'' if sandbox['seccomp'] else 'no '}seccomp; {groups}")]


def _backends(backends: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name in ("llama.cpp", "onnxruntime"):
        facts = backends[name]
        why = backends["errors"].get(name)
        if facts is None:
            rows.append((name, f"missing: {why}" if why else "missing"))
        else:
            rows.append((name, f"{facts['version'] or 'present'}{_abilities(facts)}"))
    return rows


def _abilities(facts: dict[str, Any]) -> str:
    if "providers" in facts:
        return f" ({', '.join(facts['providers'])})"
    return " (can use GPUs)" if facts["gpu_offload"] else " (CPU only)"


def _device(device: dict[str, Any]) -> tuple[object, ...]:
    state = f"{device['state']}: {device['detail']}" if device["detail"] else device["state"]
    driver = " ".join(filter(None, (device["driver"], device["driver_version"])))
    users = ", ".join(device["usable_by"])
    return device["id"], device["kind"], device["name"], state, size(device["memory_total_bytes"]), driver, users
