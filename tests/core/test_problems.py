"""What pydantic finds wrong, in the project's sentences."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from adapterbench.core.problems import problems


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    steps: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: list[Inner]
    scale: float = 1.0

    @field_validator("scale")
    @classmethod
    def not_two(cls, value: float) -> float:
        """A rule of the project's own."""
        if value == 2:
            raise ValueError("two is not a scale")
        return value


def clauses(values: Any, **more: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return problems(caught.value, **more)


def test_each_place_has_a_clause_under_the_name_that_the_user_knows() -> None:
    values = {"rows": [{"steps": 1}, {}, {"steps": "x"}], "scale": 2}
    first, second, third = clauses(values, root="train")
    assert first == "train.rows.1.steps is missing"
    assert second.startswith("train.rows.2.steps = 'x': Input should be a valid integer")
    assert third == "train.scale: Value error, two is not a scale"


def test_an_unknown_name_is_told_the_known_ones_where_they_are_known() -> None:
    assert clauses({"rows": [], "scal": 1}, root="t", fields=["scale", "rows"]) == [
        "t.scal is not a parameter (known: rows, scale)"
    ]
    inner = {"rows": [{"steps": 1, "step": 1}]}
    assert clauses(inner, fields=["scale", "rows"]) == ["rows.0.step is not a parameter"]


def test_a_whole_file_of_another_kind_is_its_content() -> None:
    assert clauses([1])[0].startswith("content = [1]: Input should be a valid dictionary")
