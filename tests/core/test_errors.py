"""Errors and the values in them, as one line."""

import pickle
from pathlib import Path

import pytest

from adapterbench.core.errors import MAX_REPR, InputError, one_line, short_repr


def test_an_error_of_several_lines_becomes_one() -> None:
    assert one_line(ValueError("first\n  second\t third\n")) == "first second third"


@pytest.mark.parametrize("length", [19, 20, 21, 300])
def test_a_long_error_is_cut_to_the_limit(length: int) -> None:
    line = one_line("x" * length, limit=20)
    assert len(line) == min(length, 20)
    assert line.endswith(" ...") == (length > 20)


def test_a_value_is_shown_as_python_writes_it() -> None:
    assert short_repr("a\nb") == r"'a\nb'"
    assert len(short_repr("x" * 1000)) == MAX_REPR


def test_a_value_that_python_cannot_write_is_shown_all_the_same() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (10**10_000, nested):
        assert short_repr(value) == "a value too large to show"


def test_an_input_error_names_the_remedy_and_comes_back_from_a_worker() -> None:
    error = InputError("the shard is damaged", Path("data/shards"))
    assert str(error) == "the shard is damaged: make it again"
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.cause, back.path) == (str(error), error.cause, error.path)
