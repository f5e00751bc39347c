"""What each method needs: the least role, or nothing. A method that does not stand here does not exist for clients."""

from __future__ import annotations

from ..domain.access import Role

ANYONE = None  # who can connect

_OURS: dict[str, dict[Role | None, str]] = {
    "inferd.v1.Inference": {Role.USER: "Generate Tokenize Cancel SetPriority Embed Rerank"},
    "inferd.v1.Models": {
        Role.VIEWER: "ListModels PlanLoad",
        Role.OPERATOR: "LoadModel UnloadModel Lease Pin PullModel SetAlias",
    },
    "inferd.v1.Monitor": {Role.VIEWER: "GetSnapshot Watch Explain WatchEvents WhoAmI"},
    "inferd.v1.Admin": {
        Role.OPERATOR: "Drain Reload",
        Role.ADMIN: "CreateToken ListTokens RevokeToken",
    },
    "inferd.v1.Jobs": {Role.USER: "SubmitJob GetJob StreamJob ListJobs CancelJob"},
    "inference.GRPCInferenceService": {
        ANYONE: "ServerLive ServerReady",  # what balancers of load ask, as they ask for health
        Role.VIEWER: "ServerMetadata ModelReady ModelMetadata ModelConfig ModelStatistics RepositoryIndex",
        Role.USER: "ModelInfer ModelStreamInfer",
        Role.OPERATOR: "RepositoryModelLoad RepositoryModelUnload",
    },
    "grpc.health.v1.Health": {ANYONE: "Check Watch"},
    "grpc.reflection.v1alpha.ServerReflection": {ANYONE: "ServerReflectionInfo"},
}

# /service/Method -> the least role that may call it
LEAST: dict[str, Role | None] = {
    f"/{service}/{method}": role
    for service, by_role in _OURS.items()
    for role, methods in by_role.items()
    for method in methods.split()
}
