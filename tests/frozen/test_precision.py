"""What networks compute in, by the names of `mixed_precision`."""

from typing import get_args

import pytest
import torch

from adapterbench.core.config import Precision
from adapterbench.frozen.precision import DTYPES, autocast


def test_every_name_of_the_parameters_has_a_type() -> None:
    assert set(DTYPES) == set(get_args(Precision))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_a_product_is_computed_in_it(precision: Precision, dtype: torch.dtype) -> None:
    a, b = torch.ones(2, 2), torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (a @ b).dtype == dtype
    assert (a @ b).dtype == torch.float32
