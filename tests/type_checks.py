"""What checks types and shapes of the package's functions while tests run."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

checked = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int will do for a float
        hint_overrides=FrozenDict({Self: Any}),  # a method is checked without its class
    )
)
