"""The verdict names an adapter as the best only if it has learned."""

import pytest

from adapterbench.report.verdict import verdict

from .test_findings import FLOORS, Means, comparison


@pytest.mark.parametrize(
    ("scores", "protocol", "first"),
    [
        (
            {"small": (0.2, 0.65), "ip_adapter": (0.2, 0.7)},
            "image",
            "IP-Adapter follows the image prompt best: CLIP-I 0.700 [0.690, 0.710] and Neutral-I "
            "0.700 [0.690, 0.710].",
        ),
        (  # CLIP-I is fooled by the one that has not learned
            {"small": (0.2, 0.65), "ip_adapter": (0.2, 0.7, 0.505)},
            "image",
            "small follows the image prompt best: CLIP-I 0.650 [0.640, 0.660] and Neutral-I 0.650 "
            "[0.640, 0.660].",
        ),
        (
            {"small": (0.2, 0.55), "ip_adapter": (0.2, 0.575)},
            "image_text",
            'By both evaluators, no adapter is significantly better than "text only" and its own '
            "shuffled reference.",
        ),
    ],
)
def test_the_first_sentence(scores: Means, protocol: str, first: str) -> None:
    assert verdict(comparison(scores, FLOORS, protocol))[0] == first
