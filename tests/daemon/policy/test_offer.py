"""Which files make the model that somebody wants."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.pull import HubFile, PullOrder
from inferd.daemon.policy.offer import QUANTIZATIONS, Choice, Room, choose

if TYPE_CHECKING:
    import random

MUCH = Room(10**12, 10**12)
GIB = 2**30


def listing(*names: str, n_bytes: int = 100) -> list[HubFile]:
    return [HubFile(name, n_bytes, f"{i:064x}") for i, name in enumerate(names)]


def pick(names: list[str], file: str = "", room: Room = MUCH) -> Choice:
    return choose(listing(*names), PullOrder("owner/Some-Model", file), room)


def refusal(names: list[str], file: str = "", room: Room = MUCH) -> InferdError:
    with pytest.raises(InferdError) as caught:
        pick(names, file, room)
    return caught.value


def targets(choice: Choice) -> list[str]:
    return [target for _, target in choice.files]


# GGUF


def test_the_only_one_is_taken() -> None:
    choice = pick(["README.md", "Tiny.Q8_0.gguf"])
    assert (choice.main, targets(choice), choice.title) == ("Tiny.Q8_0.gguf", ["Tiny.Q8_0.gguf"], "Tiny.Q8_0")
    assert choice.why == "it is the only one"


def test_of_several_the_best_known_is_taken_and_the_reason_told() -> None:
    choice = pick(["m-Q8_0.gguf", "m-q4_k_m.gguf", "m-Q2_K.gguf", "m-F16.gguf"])
    assert choice.main == "m-q4_k_m.gguf"
    assert choice.why == "Q4_K_M is the first choice of 4 files, 4 of them small enough"


def test_one_that_does_not_fit_is_passed_over() -> None:
    files = [HubFile("m.Q4_K_M.gguf", 8 * GIB, "1" * 64), HubFile("m.Q3_K_M.gguf", 6 * GIB, "2" * 64)]
    for room in (Room(7 * GIB, 10**12), Room(10**12, 7 * GIB)):
        assert choose(files, PullOrder("a/b"), room).main == "m.Q3_K_M.gguf"
    with pytest.raises(InferdError) as caught:
        choose(files, PullOrder("a/b"), Room(5 * GIB, 10**12))
    assert (caught.value.code, caught.value.details["needed_bytes"]) == (Code.NO_ROOM, 6 * GIB)


def test_who_names_a_file_gets_it_whatever_its_size() -> None:
    assert pick(["m.Q4_K_M.gguf", "m.F32.gguf"], "m.F32.gguf", Room(1, 1)).main == "m.F32.gguf"


def test_several_without_a_first_choice_are_listed() -> None:
    error = refusal(["one.gguf", "two.gguf"])
    assert (error.code, error.field) == (Code.INVALID, "file")
    assert "one.gguf, two.gguf" in error.message
    error = refusal([f"m{i}.Q4_K_M.gguf" for i in range(20)])
    assert error.message.endswith("and 12 more")


def test_all_parts_of_a_model_come_whichever_is_named() -> None:
    parts = [f"q4/big-{no:05}-of-00003.gguf" for no in (1, 2, 3)]
    for file in ("", *parts):
        choice = pick([*parts, "README.md"], file)
        assert [file.name for file, _ in choice.files] == parts
        assert (targets(choice)[0], choice.title, choice.n_bytes) == ("big-00001-of-00003.gguf", "big", 300)


def test_a_model_without_one_of_its_parts_is_none() -> None:
    error = refusal(["big-00001-of-00003.gguf", "big-00003-of-00003.gguf"])
    assert (error.code, error.field) == (Code.NOT_FOUND, "repo")
    assert refusal(["big-00001-of-99999.gguf"]).code is Code.NOT_FOUND


def test_what_is_no_model_is_not_offered() -> None:
    assert pick(["mmproj-F16.gguf", "m.imatrix.gguf", "m.gguf"]).main == "m.gguf"


def test_a_file_that_is_not_there_is_told_with_those_that_are() -> None:
    error = refusal(["a.gguf", "b.gguf"], "c.gguf")
    assert (error.code, error.field) == (Code.NOT_FOUND, "file")
    assert "a.gguf, b.gguf" in error.message


# ONNX


def test_an_onnx_model_brings_its_weights_and_what_says_what_it_is() -> None:
    names = ["config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data", "onnx/model.onnx_data_1"]
    choice = pick([*names, "onnx/model_q4.onnx", "1_Pooling/config.json", "pytorch_model.bin", "other/config.json"])
    assert choice.main == "onnx/model.onnx"
    assert sorted(targets(choice)) == sorted([*names, "1_Pooling/config.json"])
    assert choice.title == "Some-Model"
    assert choice.why.startswith("model is the first choice of 2 files")


def test_another_variant_has_its_own_name() -> None:
    assert pick(["onnx/model.onnx", "onnx/model_int8.onnx"], "onnx/model_int8.onnx").title == "Some-Model-int8"


def test_a_folder_of_genai_is_taken_as_a_whole() -> None:
    names = ["cpu/int4/genai_config.json", "cpu/int4/model.onnx", "cpu/int4/model.onnx.data", "cpu/int4/tokenizer.json"]
    choice = pick([*names, "README.md", "tokenizer.json"])
    assert sorted(targets(choice)) == ["genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json"]


def test_a_gguf_comes_before_an_onnx() -> None:
    assert pick(["model.onnx", "m.gguf"]).main == "m.gguf"


def test_a_folder_that_is_called_like_a_quantization_is_none() -> None:
    assert "model.onnx" in refusal(["f16/model.onnx", "q8/model.onnx"]).message


# all


NAMES = st.lists(
    st.sampled_from(
        [
            *(f"m.{word}.gguf" for word in QUANTIZATIONS),
            "onnx/model.onnx",
            "onnx/model_int8.onnx",
            "config.json",
            "x.gguf",
        ]
    ),
    unique=True,
)


@given(NAMES, st.randoms(use_true_random=False))
def test_the_order_of_a_listing_does_not_matter(names: list[str], order: random.Random) -> None:
    files = listing(*names)
    mixed = order.sample(files, len(files))
    answers: list[object] = []
    for one in (files, mixed):
        try:
            answers.append(choose(one, PullOrder("a/b"), MUCH))
        except InferdError as error:
            answers.append((error.code, error.message))
    assert answers[0] == answers[1]


@given(NAMES)
def test_no_two_files_want_the_same_place(names: list[str]) -> None:
    try:
        choice = choose(listing(*names), PullOrder("a/b"), MUCH)
    except InferdError:
        return
    assert len(set(targets(choice))) == len(choice.files)
    assert choice.files[0][0].name == choice.main


def test_a_hostile_listing_costs_little() -> None:
    names = [f"m{i}-00001-of-00512.gguf" for i in range(2000)] + [f"f{i}/model.onnx" for i in range(2000)]
    start_s = time.process_time()
    refusal(names)
    assert time.process_time() - start_s < 2.0
