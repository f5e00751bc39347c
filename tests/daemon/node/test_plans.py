"""What a model file and the config together make of a load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends import kinds
from inferd.backends.facts import ModelFacts
from inferd.daemon.domain.config import Config, Fake, ModelOptions, Models
from inferd.daemon.node.plans import (
    CELL_STEP,
    DEFAULT_CACHE_BYTES,
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_KEEP_ALIVE_S,
    DEFAULT_SLOTS,
    DEFAULT_WHOLE_TOKENS,
    MAX_FULL_CONTEXTS,
    N_DRAFT,
    STATES_KEPT,
    Gpu,
    keep_alive_s,
    make_plan,
    make_plans,
    options_for,
)

if TYPE_CHECKING:
    from inferd.backends.facts import Pooling, Task

GIB = 1 << 30
FACTS = ModelFacts(
    backend="llama",
    path="/m.gguf",
    file_bytes=1,
    architecture="llama",
    quantization="Q8_0",
    n_params=1,
    n_layers=1,
    n_embd=1,
    n_heads=1,
    n_kv_heads=1,
    k_head_dim=1,
    v_head_dim=1,
    n_ctx_train=32_768,
    n_vocab=300,
)


def config(defaults: ModelOptions | None = None, **by_name: ModelOptions) -> Config:
    return Config(models=Models(defaults=defaults or ModelOptions(), by_name=by_name))


def test_without_a_config_the_model_and_the_machine_decide() -> None:
    plan = make_plan("m", FACTS, Config(), default_threads=6)
    assert (plan.backend, plan.path, plan.n_threads) == ("llama", "/m.gguf", 6)
    assert plan.n_ctx == DEFAULT_CONTEXT_TOKENS
    assert plan.n_slots == DEFAULT_SLOTS
    assert plan.kv_cells == MAX_FULL_CONTEXTS * plan.n_ctx
    assert (plan.n_gpu_layers, plan.devices, plan.use_mmap) == (0, (), True)


def test_a_model_that_embeds_has_cells_for_one_context_and_shares_nothing() -> None:
    facts = msgspec.structs.replace(FACTS, pooling="last")
    plan = make_plan("m", facts, config(ModelOptions(kv_layout="split")), 1)
    assert (plan.pooling, plan.n_ctx, plan.kv_cells, plan.n_ubatch) == ("last", 8192, 8192, 512)
    assert (plan.kv_layout, plan.n_draft, plan.prefix_caching, plan.cache_bytes) == ("unified", 0, False, 0)


def test_states_of_recurrent_models_are_kept_several_times() -> None:
    facts = msgspec.structs.replace(FACTS, recurrent=True, n_embd=1, n_ctx_train=256)
    kv_bytes = kinds.footprint(facts, make_plan("m", facts, Config(), 1)).kv_bytes
    assert make_plan("m", facts, Config(), 1).cache_bytes == min(STATES_KEPT * kv_bytes, DEFAULT_CACHE_BYTES) > 0
    assert make_plan("m", facts, config(ModelOptions(prefix_caching=False)), 1).cache_bytes == 0
    sliding = msgspec.structs.replace(FACTS, sliding_window=64)
    assert make_plan("m", sliding, Config(), 1).cache_bytes == 0


def test_what_is_computed_in_one_piece_has_a_row_for_each_token() -> None:
    facts = msgspec.structs.replace(FACTS, pooling="mean", causal=False)
    plan = make_plan("m", facts, Config(), 1)
    assert (plan.n_ctx, plan.n_ubatch) == (DEFAULT_WHOLE_TOKENS, DEFAULT_WHOLE_TOKENS)
    long = make_plan("m", facts, config(ModelOptions(context_tokens=8000)), 1)
    assert (long.n_ctx, long.n_ubatch) == (8192, 8192)
    short = make_plan("m", msgspec.structs.replace(facts, n_ctx_train=200), Config(), 1)
    assert (short.n_ctx, short.n_ubatch) == (256, 512)


def test_the_operator_may_say_how_a_model_pools_but_only_a_head_ranks() -> None:
    def pooling(of_file: Pooling, said: str | None) -> str:
        facts = msgspec.structs.replace(FACTS, pooling=of_file)
        options = msgspec.convert({} if said is None else {"pooling": said}, ModelOptions)
        return make_plan("m", facts, config(options), 1).pooling

    assert [pooling("", said) for said in (None, "none", "mean", "last")] == ["", "", "mean", "last"]
    assert [pooling("cls", said) for said in (None, "none", "mean")] == ["cls", "", "mean"]
    assert [pooling("rank", said) for said in (None, "none", "mean")] == ["rank"] * 3
    with pytest.raises(msgspec.ValidationError):
        pooling("", "rank")


def test_a_graph_does_what_it_was_made_for() -> None:
    def plan(task: Task, of_file: Pooling, said: str) -> tuple[str, str]:
        facts = msgspec.structs.replace(FACTS, backend="onnx", task=task, pooling=of_file)
        made = make_plan("m", facts, config(msgspec.convert({"pooling": said}, ModelOptions)), 1)
        return made.task, made.pooling

    assert plan("generate", "", "mean") == ("generate", "")
    assert plan("embed", "mean", "none") == ("embed", "mean")
    assert plan("embed", "mean", "cls") == ("embed", "cls")


def test_a_short_model_gets_no_more_context_than_it_was_trained_for() -> None:
    facts = msgspec.structs.replace(FACTS, n_ctx_train=1000)
    assert make_plan("m", facts, Config(), 1).n_ctx == 1024


def test_few_slots_need_no_more_cells_than_their_contexts() -> None:
    plan = make_plan("m", FACTS, config(ModelOptions(slots=2, context_tokens=512)), 1)
    assert plan.kv_cells == 2 * 512


def test_cells_are_never_fewer_than_one_context() -> None:
    plan = make_plan("m", FACTS, config(ModelOptions(context_tokens=4096, kv_cells=256)), 1)
    assert plan.kv_cells == plan.n_ctx == 4096


@given(st.integers(1, 200_000), st.integers(1, 64), st.none() | st.integers(1, 10**6))
def test_a_plan_keeps_what_an_engine_relies_on(context_tokens: int, slots: int, kv_cells: int | None) -> None:
    options = ModelOptions(context_tokens=context_tokens, slots=slots, kv_cells=kv_cells)
    plan = make_plan("m", FACTS, config(options), 1)
    assert plan.n_ctx % CELL_STEP == plan.kv_cells % CELL_STEP == 0
    assert context_tokens <= plan.n_ctx < context_tokens + CELL_STEP
    assert plan.kv_cells >= plan.n_ctx
    assert plan.n_slots == slots


def test_a_models_own_options_go_over_the_bundled_ones_and_those_over_the_defaults() -> None:
    defaults = ModelOptions(slots=2, numerics="fast", threads=3)
    merged = options_for("demo", config(defaults, demo=ModelOptions(threads=1)))
    assert (merged.slots, merged.numerics, merged.threads) == (2, "exact", 1)
    assert options_for("demo", config(demo=ModelOptions(numerics="fast"))).numerics == "fast"
    assert options_for("m", config(defaults)).numerics == "fast"


def test_a_false_or_zero_of_the_operator_is_a_decision_and_not_a_gap() -> None:
    options = ModelOptions(mmap=False, flash_attention=False, gpu_layers=0, keep_alive_s=0.0)
    plan = make_plan("m", FACTS, config(m=options), 1, gpus=("gpu0",))
    assert (plan.use_mmap, plan.flash_attention, plan.n_gpu_layers, plan.devices) == (False, False, 0, ())
    assert keep_alive_s("m", config(m=options)) == 0.0


def test_where_there_are_gpus_all_layers_go_there() -> None:
    plan = make_plan("m", FACTS, Config(), 1, gpus=("gpu0", "gpu1"))
    assert (plan.n_gpu_layers, plan.devices) == (-1, ("gpu0", "gpu1"))


LARGE = msgspec.structs.replace(FACTS, file_bytes=10 * GIB, n_layers=9)  # ten parts of one GiB


def where(sizes_gib: list[float], options: ModelOptions | None = None) -> list[tuple[tuple[str, ...], int]]:
    """(devices, layers offloaded) of each plan for LARGE on GPUs of these sizes."""
    gpus = {f"gpu{i}": Gpu(int(size * GIB), f"CUDA{i}") for i, size in enumerate(sizes_gib)}
    plans = make_plans("m", LARGE, config(options), 1, gpus)
    assert all(plan.device_names == tuple(gpus[d].name for d in plan.devices) for plan in plans)
    return [(plan.devices, plan.n_gpu_layers) for plan in plans]


@pytest.mark.parametrize(
    ("sizes_gib", "expected"),
    [
        ([], [((), 0)]),
        ([24], [(("gpu0",), -1)]),
        ([24, 24], [(("gpu0",), -1), (("gpu1",), -1)]),
        ([4, 24], [(("gpu1",), -1)]),  # the one that takes it whole
        ([8, 8], [(("gpu0", "gpu1"), -1)]),  # only both together do
        ([5, 9], [(("gpu0", "gpu1"), -1)]),  # the larger one has more of it: halves would not fit
        ([1], [((), 0)]),  # not even a layer fits
    ],
)
def test_a_model_may_be_wherever_it_fits_whole(
    sizes_gib: list[float], expected: list[tuple[tuple[str, ...], int]]
) -> None:
    assert where(sizes_gib) == expected


@pytest.mark.parametrize("size_gib", [3.0, 5.0, 7.5])
def test_of_a_model_that_is_too_large_as_many_layers_go_to_the_gpu_as_fit(size_gib: float) -> None:
    ((devices, n_layers),) = where([size_gib])
    assert devices == ("gpu0",)
    assert 0 < n_layers <= 9

    def needs(n: int) -> int:
        plan = msgspec.structs.replace(make_plan("m", LARGE, Config(), 1, devices), n_gpu_layers=n)
        return kinds.footprint(LARGE, plan).bytes_on["gpu0"]

    assert needs(n_layers) <= size_gib * GIB < needs(n_layers + 1)


def test_what_the_operator_says_of_layers_is_done() -> None:
    assert where([24, 24], ModelOptions(gpu_layers=0)) == [((), 0)]
    assert where([], ModelOptions(gpu_layers=20)) == [((), 0)]  # and no GPU that nobody has accounted for
    assert where([24], ModelOptions(gpu_layers=3)) == [(("gpu0",), 3)]
    assert where([2], ModelOptions(gpu_layers=3)) == [(("gpu0",), 3)]  # the refusal will name both numbers


def test_the_fake_stands_in_for_every_backend() -> None:
    fake = Config(fake=Fake(enabled=True, tokens_per_s=7.0, load_s=0.5))
    plan = make_plan("m", FACTS, fake, 1)
    assert (plan.backend, plan.fake_tokens_per_s, plan.fake_load_s) == ("fake", 7.0, 0.5)


@pytest.mark.parametrize(
    ("given_s", "expected_s"), [(None, DEFAULT_KEEP_ALIVE_S), (0.0, 0.0), (-1.0, -1.0), (5.0, 5.0)]
)
def test_the_keep_alive(given_s: float | None, expected_s: float) -> None:
    assert keep_alive_s("m", config(m=ModelOptions(keep_alive_s=given_s))) == expected_s


def test_a_model_with_exact_numerics_stays_on_the_processor_unless_the_operator_says_where_it_goes() -> None:
    assert where([24], ModelOptions(numerics="exact")) == [((), 0)]
    assert where([24], ModelOptions(numerics="exact", gpu_layers=-1)) == [(("gpu0",), -1)]


# a model that guesses


SMALL = msgspec.structs.replace(FACTS, path="/small.gguf")


def test_it_is_part_of_every_plan_but_that_of_a_model_that_cannot_go_back() -> None:
    plan = make_plan("m", FACTS, Config(), 1, draft=SMALL)
    assert (plan.draft, plan.n_draft) == (SMALL, N_DRAFT)
    alone = make_plan("m", FACTS, Config(), 1)
    assert plan.cache_bytes == alone.cache_bytes
    recurrent = msgspec.structs.replace(FACTS, recurrent=True)
    assert make_plan("m", recurrent, Config(), 1, draft=SMALL).draft is None
    assert make_plan("m", FACTS, Config(fake=Fake(enabled=True)), 1, draft=SMALL).draft is None


def test_its_bytes_count_where_a_gpu_is_chosen() -> None:
    whole = kinds.footprint(LARGE, make_plan("m", LARGE, Config(), 1, ("gpu0",))).bytes_on["gpu0"]
    gpus = {"gpu0": Gpu(whole)}
    (alone,) = make_plans("m", LARGE, Config(), 1, gpus)
    (both,) = make_plans("m", LARGE, Config(), 1, gpus, LARGE)
    assert alone.n_gpu_layers == -1
    assert 0 <= both.n_gpu_layers < LARGE.n_layers


def test_a_graph_may_be_on_any_device_of_its_provider_and_they_are_told_apart() -> None:
    facts = msgspec.structs.replace(FACTS, backend="onnx", path="/m.onnx", task="infer")
    cuda = "CUDAExecutionProvider"
    gpus = {
        "gpu0": Gpu(GIB, llama=False, onnx_provider="OpenVINOExecutionProvider"),
        "gpu1": Gpu(GIB, llama=False, onnx_provider=cuda),
        "gpu2": Gpu(GIB, llama=False, onnx_provider=cuda),
        "gpu3": Gpu(GIB, "CUDA5", onnx_provider=cuda),
        "gpu4": Gpu(GIB, "Vulkan0"),
    }
    plans = make_plans("m", facts, Config(), 2, gpus)
    assert [(plan.devices, plan.device_names) for plan in plans] == [
        (("gpu0",), ("0",)),
        (("gpu1",), ("0",)),
        (("gpu2",), ("1",)),
        (("gpu3",), ("CUDA5",)),
        ((), ()),
    ]
