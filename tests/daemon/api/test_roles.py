"""Every method of every service that the daemon puts on its sockets has a role, and no other."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inferd.daemon.api.roles import ANYONE, LEAST
from inferd.daemon.domain.access import Role
from inferd.protos import inferd_pb2, oip_pb2

FILES: tuple[Any, ...] = (inferd_pb2, oip_pb2, health_pb2, reflection_pb2)


def methods() -> set[str]:
    services = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


def test_a_method_without_a_role_is_a_fault() -> None:
    assert sorted(LEAST) == sorted(methods())


def test_what_anyone_may_is_to_ask_whether_the_daemon_lives_and_what_it_speaks() -> None:
    assert {method for method, role in LEAST.items() if role is ANYONE} == {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }


def test_tokens_are_the_admins() -> None:
    assert {method.rpartition("/")[2] for method, role in LEAST.items() if role is Role.ADMIN} == {
        "CreateToken",
        "ListTokens",
        "RevokeToken",
    }


def test_a_viewer_starts_nothing() -> None:
    looks = {method.rpartition("/")[2] for method, role in LEAST.items() if role is Role.VIEWER}
    ours = {"ListModels", "PlanLoad", "GetSnapshot", "Watch", "Explain", "WatchEvents", "WhoAmI"}
    theirs = {"ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex", "ServerMetadata"}
    assert looks == ours | theirs
