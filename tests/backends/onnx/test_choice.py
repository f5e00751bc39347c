from __future__ import annotations

from inferd.backends.onnx.choice import Choice


def learn(choice: Choice, *, wide: bool, row_ms: float, call_ms: float = 0.0) -> None:
    costs = choice.costs(wide=wide)
    for size in costs.sizes * 2:
        costs.note(16, size, call_ms + row_ms * size)


def test_a_lone_request_gets_all_threads() -> None:
    choice = Choice(8, has_narrow=True)
    learn(choice, wide=True, row_ms=1.0)
    learn(choice, wide=False, row_ms=0.1)
    assert choice.goes_wide(16, 1, 4)


def test_where_several_wait_the_sooner_end_decides() -> None:
    choice = Choice(8, has_narrow=True)
    learn(choice, wide=True, row_ms=1.0)
    learn(choice, wide=False, row_ms=1.5)
    assert not choice.goes_wide(16, 8, 2)  # 6 ms in two calls side by side, 8 in one
    assert choice.goes_wide(16, 2, 1)
    slow = Choice(8, has_narrow=True)
    learn(slow, wide=True, row_ms=1.0)
    learn(slow, wide=False, row_ms=7.0)
    assert slow.goes_wide(16, 2, 4)  # two threads of many, each at a seventh of the speed


def test_what_is_not_known_is_found_out() -> None:
    assert not Choice(8, has_narrow=True).goes_wide(16, 4, 2)


def test_without_a_second_session_there_is_no_choice() -> None:
    assert Choice(8, has_narrow=False).goes_wide(16, 32, 8)
