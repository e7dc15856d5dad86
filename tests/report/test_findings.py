"""The sentences follow from the numbers."""

from collections.abc import Sequence

import pandas as pd
import pytest

from adapterbench.report.findings import findings
from adapterbench.report.methods import BASELINES, contrasts, label
from adapterbench.report.metrics import SCORES
from adapterbench.report.table import Comparison

HALF = 0.01

Means = dict[str, tuple[float, ...]]
"""`(clip_t, clip_i)` of a method, then `neutral` if it differs from `clip_i`."""


def comparison(
    scores: Means, floors: Means, protocol: str, training_free: Sequence[str] = ()
) -> Comparison:
    """A comparison whose intervals all have the half width 0.01; R@1 is 0 throughout."""
    rest = dict.fromkeys(BASELINES, (0.3, 1.0))
    means = {
        method: dict(zip((m.key for m in SCORES), (t, i, (n or [i])[0], 0.0), strict=True))
        for method, (t, i, *n) in {**scores, **rest, **floors}.items()
    }
    rows = [
        {
            "method": method,
            "label": label(method),
            "trained": "",
            "trainable_params": 1_000_000 * (place + 1) if method in scores else 0,
            **{f"{key}{end}": v + at for key, v in values.items() for end, at in ENDS.items()},
        }
        for place, (method, values) in enumerate(means.items())
    ]
    paired = [
        {
            **{"method": a, "baseline": b, "metric": m.key},
            "difference": (d := means[a][m.key] - means[b][m.key]),
            **{"lo": d - HALF, "hi": d + HALF},
        }
        for a, b in contrasts(list(scores), training_free)
        for m in SCORES
    ]
    return Comparison(protocol=protocol, rows=pd.DataFrame(rows), paired=pd.DataFrame(paired))


ENDS = {"": 0, "_lo": -HALF, "_hi": HALF}
FLOORS: Means = {
    "no_prompt": (0.1, 0.5),
    "text_only": (0.2, 0.57),
    "shuffled_reference": (0.1, 0.5),
}


def texts(scores: Means, protocol: str = "image") -> list[str]:
    return [f.text for f in findings(comparison(scores, FLOORS, protocol))]


def test_a_variant_on_the_floor_did_not_learn() -> None:
    scores = {"ip_adapter": (0.19, 0.7), "still": (0.1, 0.505, 0.52)}
    found = findings(comparison(scores, FLOORS, "image"))
    assert [f.text for f in found if f.alarm] == [
        'DID NOT LEARN: still: its CLIP-I does not exceed "no prompt" (+0.005 [-0.005, +0.015]) '
        "and its own shuffled reference (+0.005 [-0.005, +0.015])."
    ]
    assert found[0].alarm
    assert "IP-Adapter learned to use the image prompt" in found[1].text


def test_what_one_evaluator_alone_sees_is_not_learned() -> None:
    found = findings(comparison({"ip_adapter": (0.19, 0.7, 0.505)}, FLOORS, "image"))
    assert [f.text for f in found if "LEARN" in f.text] == [
        'DID NOT LEARN: IP-Adapter: its Neutral-I does not exceed "no prompt" '
        "(+0.005 [-0.005, +0.015]) and its own shuffled reference (+0.005 [-0.005, +0.015])."
    ]
    assert not any("learned" in f.text for f in found)


@pytest.mark.parametrize(("protocol", "alarms"), [("image", 0), ("image_text", 1)])
def test_beside_a_caption_the_floor_is_the_caption_alone(protocol: str, alarms: int) -> None:
    found = findings(comparison({"ip_adapter": (0.2, 0.575)}, FLOORS, protocol))
    said = [f.text.partition(":")[0] for f in found if f.alarm]
    assert said == ["ADDS NOTHING TO THE CAPTION"] * alarms


def test_best_ties_trade_off_and_text() -> None:
    sentences = texts({"small": (0.15, 0.65), "ip_adapter": (0.25, 0.70), "big": (0.205, 0.695)})
    assert any(s.startswith("Every adapter learned") and "+0.150 to +0.200" in s for s in sentences)
    assert (
        "Best on CLIP-T: IP-Adapter, 0.250 [0.240, 0.260]; significantly better than every other, "
        "the next being big by +0.045 [+0.035, +0.055]." in sentences
    )
    assert (
        "Best on CLIP-I: IP-Adapter, 0.700 [0.690, 0.710]; not significantly better than big."
        in sentences
    )
    assert any(
        s.startswith("Lightest: small, 1.00 M trainable parameters (50.0% of IP-Adapter's)")
        and "CLIP-I -0.050 [-0.060, -0.040]" in s
        for s in sentences
    )
    assert (
        "Against the caption alone (CLIP-T 0.200 [0.190, 0.210]), "
        "better: IP-Adapter; worse: small; no significant difference: big." in sentences
    )
    assert "On CLIP-T, all pairs of adapters differ significantly." in sentences
    assert "On CLIP-I, no significant difference between IP-Adapter and big." in sentences


def test_where_the_evaluators_agree_and_where_they_do_not() -> None:
    scores: Means = {
        "ip_adapter": (0.2, 0.70, 0.65),
        "turned": (0.2, 0.60, 0.75),
        "blind": (0.2, 0.60, 0.651),
    }
    found = findings(comparison(scores, FLOORS, "image"))
    assert [f.text for f in found if f.alarm] == [
        "EVALUATORS CONTRADICT EACH OTHER on IP-Adapter against turned: "
        "CLIP-I +0.100 [+0.090, +0.110], Neutral-I -0.100 [-0.110, -0.090]."
    ]
    sentences = [f.text for f in found]
    assert (
        "CLIP-I and Neutral-I both find a significant difference, the same way, on 3 of 6 pairs: "
        "IP-Adapter over Text only; turned over Text only; blind over Text only." in sentences
    )
    assert "Significant by CLIP-I only: IP-Adapter over blind." in sentences
    assert "Significant by Neutral-I only: turned over blind." in sentences


def test_evaluators_that_see_no_difference_agree_on_none() -> None:
    sentences = texts({"ip_adapter": (0.2, 0.575), "same": (0.2, 0.571)})
    assert any(
        s.endswith("significant difference, the same way, on 0 of 3 pairs.") for s in sentences
    )
    assert not any(s.startswith(("Significant", "EVALUATORS")) for s in sentences)
    sentences = texts({"ip_adapter": (0.2, 0.575), "same": (0.2, 0.571), "too": (0.2, 0.573)})
    assert "On CLIP-I, no two adapters differ significantly." in sentences


def test_one_variant_alone_has_nothing_to_be_compared_with() -> None:
    sentences = texts({"ip_adapter": (0.25, 0.70)})
    assert "Best on CLIP-I: IP-Adapter, 0.700 [0.690, 0.710]." in sentences
    assert not any(s.startswith(("Lightest", "On CLIP")) for s in sentences)


def test_methods_without_training_have_a_sentence_each() -> None:
    scores: Means = {"ip_adapter": (0.19, 0.7), "better": (0.19, 0.9)}
    others: Means = {**FLOORS, "img2img": (0.19, 0.8), "reference_only": (0.3, 0.7)}
    free = ["img2img", "reference_only"]
    found = [f.text for f in findings(comparison(scores, others, "image", free))]
    sentence = "Against Image to image (CLIP-I 0.800 [0.790, 0.810]), "
    assert f"{sentence}better: better; worse: IP-Adapter." in found
    assert not any("Against Image" in text for text in texts(scores))
