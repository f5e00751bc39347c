"""Mutants of messages: the same for the same seed, of every method that there is, and some of them sound."""

from __future__ import annotations

import random

from google.protobuf.message import DecodeError

from inferd.protos import inferd_pb2 as pb
from inferd.tests.chaos.messages import DEEP, extremes, fill, methods, mutate


def test_every_method_of_both_protocols_is_found() -> None:
    names = {method.full_name for method in methods()}
    assert {
        "inferd.v1.Inference.Generate",
        "inferd.v1.Admin.Drain",
        "inference.GRPCInferenceService.ModelInfer",
    } <= names
    assert len(names) > 30


def drawn(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [mutate(rng, fill(rng, pb.GenerateRequest()).SerializeToString()) for _ in range(200)]


def test_the_same_seed_makes_the_same_mutants() -> None:
    assert drawn(1) == drawn(1) != drawn(2)


def test_some_mutants_are_messages_and_some_are_not() -> None:
    n_messages = 0
    for raw in drawn(1):
        try:
            pb.GenerateRequest.FromString(raw)
            n_messages += 1
        except DecodeError:
            pass
    assert 50 < n_messages < 200


def test_every_method_gets_what_is_too_deep_and_what_lies() -> None:
    found = extremes(pb.GenerateRequest.DESCRIPTOR)
    assert b"" in found
    assert max(map(len, found)) > 1 << 20
    assert sum(len(raw) > DEEP for raw in found) >= 2
