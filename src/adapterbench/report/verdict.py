"""The comparison in three sentences: the best adapter, the lightest one, and the baselines."""

from adapterbench.report.findings import (
    amount,
    floor_name,
    floors_of,
    interval,
    missed_floors,
    ranked,
    significance_sign,
)
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
    """Three summary sentences; each names the evaluators under which it holds."""
    return [best_adapter(comparison), lightest_adapter(comparison), versus_baselines(comparison)]


def best_adapter(comparison: Comparison) -> str:
    """Which adapter follows the image prompt best, if any does and the evaluators agree."""
    label = comparison.label
    learned = [v for v in comparison.variants if not any(missed_floors(comparison, v).values())]
    if not learned:
        floors = " and ".join(floor_name(comparison, floor) for floor in floors_of(comparison))
        return f"By both evaluators, no adapter is significantly better than {floors}."
    leaders = {
        metric: next(v for v in ranked(comparison, metric) if v in learned)
        for metric in SIMILARITIES
    }
    if len(set(leaders.values())) > 1:
        rankings = " and ".join(
            f"{metric.label} ranks {label(leader)} first ({interval(comparison, leader, metric)})"
            for metric, leader in leaders.items()
        )
        return f"The evaluators do not agree on the best adapter: {rankings}."
    leader = leaders[CLIP_I]
    scores = " and ".join(f"{m.label} {interval(comparison, leader, m)}" for m in SIMILARITIES)
    ties = [v for v in comparison.variants if v != leader and tied(comparison, leader, v)]
    tie = f", not significantly better than {', '.join(map(label, ties))}" if ties else ""
    return f"{label(leader)} follows the image prompt best: {scores}{tie}."


def tied(comparison: Comparison, a: str, b: str) -> bool:
    """Whether two adapters do not differ significantly by at least one evaluator."""
    return any(significance_sign(comparison, a, b, metric) == 0 for metric in SIMILARITIES)


def lightest_adapter(comparison: Comparison) -> str:
    """Difference of the lightest adapter to the best one by the neutral evaluator."""
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


def versus_baselines(comparison: Comparison) -> str:
    """Number of adapters above two baselines, and the ceiling of the base's VAE."""
    count = len(comparison.variants)
    counts = " and ".join(
        f"{above(comparison, name, NEUTRAL)} of {count} above {comparison.label(name).lower()} "
        f"({NEUTRAL.text(comparison.row(name)[NEUTRAL.key])})"
        for name in ("other_item", "text_only")
    )
    ceiling = NEUTRAL.text(comparison.row("vae")[NEUTRAL.key])
    return (
        f"On {NEUTRAL.label}, {counts} (significantly); the ceiling, reconstruction by the "
        f"base's VAE, is {ceiling}."
    )


def above(comparison: Comparison, baseline: str, metric: Metric) -> int:
    """Number of adapters that are significantly better than a baseline."""
    signs = [significance_sign(comparison, v, baseline, metric) for v in comparison.variants]
    return signs.count(1)
