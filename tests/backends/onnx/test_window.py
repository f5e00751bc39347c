from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.facts import Batching
from inferd.backends.onnx.costs import Costs
from inferd.backends.onnx.window import CALL_TOKENS, Item, Window

FREE = Costs(32)  # rows are known to be free
for bucket in (0, 16, 32):
    for size in FREE.sizes * 2:
        FREE.note(bucket, size, 10.0)


def window(most: int = 8, preferred: tuple[int, ...] = (), delay_us: int = 0, ordered: bool = False) -> Window:
    return Window(Batching(most, preferred, delay_us, ordered))


def fill(into: Window, *items: Item) -> None:
    for item in items:
        into.add(item)


def choose(made: Window, now_s: float, n_lanes: int = 1) -> tuple[list[Item], float]:
    return made.choose(made.mates(), now_s, FREE, n_lanes)


def owners(items: list[Item]) -> list[object]:
    return [item.owner for item in items]


def test_all_that_wait_share_a_call() -> None:
    made = window()
    fill(made, *(Item(i, 1, "k") for i in range(4)))
    assert owners(choose(made, 0.0)[0]) == [0, 1, 2, 3]
    assert len(made) == 0


def test_only_equals_share_one() -> None:
    made = window()
    fill(made, Item("a", 1, "k"), Item("b", 1, "other"), Item("c", 1, "k"))
    assert owners(choose(made, 0.0)[0]) == ["a", "c"]
    assert owners(choose(made, 0.0)[0]) == ["b"]


def test_only_those_of_like_length_share_one() -> None:
    made = window()
    fill(made, Item("a", 1, "k", length=12), Item("b", 1, "k", length=100), Item("c", 1, "k", length=16))
    assert owners(choose(made, 0.0)[0]) == ["a", "c"]


def test_rank_then_deadline_then_arrival_leads() -> None:
    made = window(most=1)
    fill(made, Item("old", 1, "k"), Item("due", 1, "k", due_s=5.0), Item("urgent", 1, "k", rank=2))
    assert [owners(choose(made, 0.0)[0]) for _ in range(3)] == [["urgent"], ["due"], ["old"]]


def test_a_call_has_no_more_rows_than_allowed() -> None:
    made = window(most=8)
    fill(made, Item("a", 5, "k"), Item("b", 4, "k"), Item("c", 3, "k"))
    assert owners(choose(made, 0.0)[0]) == ["a", "c"]


def test_a_request_with_too_many_rows_is_computed_alone() -> None:
    made = window(most=4)
    fill(made, Item("large", 9, "k"), Item("small", 1, "k"))
    assert owners(choose(made, 0.0)[0]) == ["large"]


def test_without_batching_each_is_alone() -> None:
    made = window(most=0)
    fill(made, Item("a", 1, "k"), Item("b", 1, "k"))
    assert owners(choose(made, 0.0)[0]) == ["a"]


def test_the_delay_is_waited_for_company_and_no_longer() -> None:
    made = window(most=4, delay_us=1000)
    fill(made, Item("a", 1, "k", came_s=10.0))
    assert choose(made, 10.0) == ([], 10.001)
    assert owners(choose(made, 10.001)[0]) == ["a"]
    fill(made, *(Item(i, 1, "k", came_s=20.0) for i in range(4)))
    assert len(choose(made, 20.0)[0]) == 4  # it is full


def test_nobody_is_delayed_past_his_deadline() -> None:
    made = window(most=4, delay_us=10_000)
    fill(made, Item("a", 1, "k", came_s=10.0, due_s=10.012))
    items, until_s = choose(made, 10.0)
    assert items == []
    assert until_s < 10.003


def test_preferred_sizes_are_made_where_they_can() -> None:
    made = window(most=8, preferred=(4, 8))
    fill(made, *(Item(i, 1, "k") for i in range(7)))
    assert len(choose(made, 0.0)[0]) == 4
    assert len(choose(made, 0.0)[0]) == 3  # what is left does not wait


def test_preserved_order_is_not_broken_by_rank_or_kind() -> None:
    made = window(ordered=True)
    fill(made, Item("a", 1, "k"), Item("b", 1, "other", rank=2), Item("c", 1, "k"))
    assert [owners(choose(made, 0.0)[0]) for _ in range(3)] == [["a"], ["b"], ["c"]]


def test_what_is_removed_is_not_chosen() -> None:
    made = window()
    fill(made, Item("a", 1, "k"), Item("b", 1, "k"), Item("a", 1, "k"))
    assert len(made.remove("a")) == 2
    assert owners(choose(made, 0.0)[0]) == ["b"]
    assert made.mates() == []


def test_what_waits_is_shared_out_among_the_lanes() -> None:
    made = window()
    fill(made, *(Item(i, 1, "k") for i in range(5)))
    assert [len(choose(made, 0.0, n)[0]) for n in (2, 1)] == [2, 2]  # of three for each; two are a size
    assert len(made) == 1


def test_long_texts_share_a_call_within_the_memory_for_one() -> None:
    made = window(most=32)
    fill(made, *(Item(i, 1, "k", length=CALL_TOKENS // 2) for i in range(4)))
    assert len(choose(made, 0.0)[0]) <= 2


def test_who_leads_is_known_before_the_call() -> None:
    made = window()
    fill(made, Item("a", 2, "k"), Item("b", 1, "other", rank=1), Item("c", 3, "other"))
    assert owners(made.mates()) == ["b", "c"]


ITEMS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 2), st.integers(0, 3)),
    max_size=20,
)


@given(ITEMS, st.integers(0, 8), st.booleans())
def test_everyone_is_served_once_within_the_rules(
    items: list[tuple[int, str, int, int, int]], most: int, ordered: bool
) -> None:
    made = window(most=most, ordered=ordered)
    for i, (n_rows, kind, length, rank, due) in enumerate(items):
        made.add(Item(i, n_rows, kind, length=length, rank=rank, due_s=float(due)))
    served: list[Item] = []
    while len(made):
        chosen, _ = choose(made, 0.0)
        assert chosen
        assert len({(item.kind, item.bucket) for item in chosen}) == 1
        assert len(chosen) == 1 or sum(item.n_rows for item in chosen) <= most
        best = min([*chosen, *made._items], key=made._turn)
        assert best is chosen[0]
        served += chosen
    assert sorted(item.owner for item in served) == list(range(len(items)))
    if ordered:
        assert [item.serial for item in served] == sorted(item.serial for item in served)
