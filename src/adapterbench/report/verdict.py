"""The comparison in three sentences: which adapter, at what price, and how far it gets."""

from adapterbench.report.findings import amount, interval, ranked, significance_sign
from adapterbench.report.metrics import (
    CLIP_I,
    NEUTRAL,
    SIMILARITIES,
    TRAINABLE,
    Metric,
    count_text,
)
from adapterbench.report.table import Comparison


def verdict(comparison: Comparison) -> list[str]:
    """Sentences for whom reads nothing else; each holds under both evaluators or says so."""
    return [first_place(comparison), price(comparison), distance(comparison)]


def first_place(comparison: Comparison) -> str:
    """Which adapter follows the image prompt best, if the evaluators agree."""
    label = comparison.label
    leaders = {metric: ranked(comparison, metric)[0] for metric in SIMILARITIES}
    if len(set(leaders.values())) > 1:
        told = " and ".join(
            f"{metric.label} ranks {label(leader)} first ({interval(comparison, leader, metric)})"
            for metric, leader in leaders.items()
        )
        return f"The evaluators do not agree on the best adapter: {told}."
    leader = leaders[CLIP_I]
    told = " and ".join(f"{m.label} {interval(comparison, leader, m)}" for m in SIMILARITIES)
    ties = [v for v in comparison.variants if v != leader and tied(comparison, leader, v)]
    behind = f", not separable from {', '.join(map(label, ties))}" if ties else ""
    return f"{label(leader)} follows the image prompt best: {told}{behind}."


def tied(comparison: Comparison, a: str, b: str) -> bool:
    """Whether either evaluator cannot tell two adapters apart."""
    return any(significance_sign(comparison, a, b, metric) == 0 for metric in SIMILARITIES)


def price(comparison: Comparison) -> str:
    """What the lightest adapter gives up against the best one on the neutral evaluator."""
    label = comparison.label
    sizes = {v: int(comparison.row(v)[TRAINABLE.key]) for v in comparison.variants}
    lightest, best = min(sizes, key=sizes.__getitem__), ranked(comparison, NEUTRAL)[0]
    text = f"The lightest, {label(lightest)}, trains {count_text(sizes[lightest])} parameters"
    if lightest == best:
        return f"{text} and is also the best on {NEUTRAL.label}."
    changes = " and ".join(
        f"{metric.label} {amount(comparison, lightest, best, metric)}" for metric in SIMILARITIES
    )
    return f"{text}, {sizes[lightest] / sizes[best]:.0%} of {label(best)}'s; against it: {changes}."


def distance(comparison: Comparison) -> str:
    """Where the adapters stand between another image, the caption and the base's own ceiling."""
    count = len(comparison.variants)
    told = " and ".join(
        f"{above(comparison, name, NEUTRAL)} of {count} above {comparison.label(name).lower()} "
        f"({NEUTRAL.text(comparison.row(name)[NEUTRAL.key])})"
        for name in ("other_item", "text_only")
    )
    ceiling = NEUTRAL.text(comparison.row("vae")[NEUTRAL.key])
    return (
        f"On {NEUTRAL.label}, the intervals of the differences put {told}; the base's own "
        f"ceiling is {ceiling}."
    )


def above(comparison: Comparison, baseline: str, metric: Metric) -> int:
    """How many adapters exceed a baseline, intervals apart."""
    signs = [significance_sign(comparison, v, baseline, metric) for v in comparison.variants]
    return signs.count(1)
