"""Numbers as people read them."""

import math

import pytest

from adapterbench.report.metrics import CLIP_I, clip_score, count_text


@pytest.mark.parametrize(
    ("parameters", "text"),
    [(11_804_160, "11.80 M"), (100_000, "0.10 M"), (34_560, "34,560"), (0, "0")],
)
def test_parameter_counts(parameters: int, text: str) -> None:
    assert count_text(parameters) == text


def test_scores() -> None:
    assert CLIP_I.text(0.70912) == "0.709"
    assert CLIP_I.text(math.nan) == ""
    assert CLIP_I.signed(0.0271) == "+0.027"
    assert clip_score(0.2) == pytest.approx(0.5)
    assert clip_score(-0.2) == 0
