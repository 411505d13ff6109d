import itertools

import pytest

from vae_lab.training.marks import is_passed, next_log_mark, next_multiple


def series(first: int, per_decade: int, count: int) -> list[int]:
    marks = [next_log_mark(0, first=first, per_decade=per_decade)]
    while len(marks) < count:
        marks.append(next_log_mark(marks[-1], first=first, per_decade=per_decade))
    return marks


def test_log_marks_are_the_documented_series():
    assert series(10_000, 5, 6) == [10_000, 16_000, 25_000, 40_000, 63_000, 100_000]
    assert series(10, 1, 4) == [10, 100, 1_000, 10_000]


@pytest.mark.parametrize("first", [1, 7, 100, 10_000])
@pytest.mark.parametrize("per_decade", [1, 5, 20, 100])
def test_next_log_mark_is_above_and_depends_on_the_count_alone(first, per_decade):
    marks = series(first, per_decade, 60)
    assert marks == sorted(set(marks))
    for before, mark in itertools.pairwise(marks):
        for samples in {before, (before + mark) // 2, mark - 1}:
            assert next_log_mark(samples, first=first, per_decade=per_decade) == mark


@pytest.mark.parametrize(("samples", "expected"), [(0, 500), (499, 500), (500, 1000), (501, 1000)])
def test_next_multiple_is_above(samples, expected):
    assert next_multiple(samples, 500) == expected


def test_a_mark_is_passed_once():
    steps = range(0, 1000, 100)
    for mark in (1, 100, 150, 999):
        assert [is_passed(mark, step, step + 100) for step in steps].count(True) == 1
    assert not is_passed(None, 0, 100)
