"""Sentences about a comparison, derived from its numbers.

Two methods differ significantly where the interval of their paired difference excludes zero.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from adapterbench.formats.generated import HEADLINE, PROTOCOLS
from adapterbench.report.methods import SHUFFLED, Names
from adapterbench.report.metrics import (
    CLIP_I,
    SCORES,
    SIMILARITIES,
    TRAINABLE,
    Metric,
    count_text,
)
from adapterbench.report.table import Comparison


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about the comparison."""

    text: str
    alarm: bool = False
    """Whether it is a warning."""


def findings(comparison: Comparison) -> list[Finding]:
    """All sentences, alarms first."""
    sentences: Iterable[Callable[[Comparison], list[Finding]]] = (
        learning,
        agreement,
        best,
        trade_off,
        against_text,
        against_training_free,
        insignificant_pairs,
    )
    results = [finding for sentence in sentences for finding in sentence(comparison)]
    return sorted(results, key=lambda finding: not finding.alarm)


def significance_sign(comparison: Comparison, method: str, baseline: str, metric: Metric) -> int:
    """+1 if `method` is significantly better than `baseline`, -1 if worse, 0 if neither."""
    _, lo, hi = comparison.difference(method, baseline, metric.key)
    return metric.sign * (int(lo > 0) - int(hi < 0))


def amount(comparison: Comparison, method: str, baseline: str, metric: Metric) -> str:
    """A difference with its interval, such as `+0.027 [+0.020, +0.034]`."""
    difference, lo, hi = map(metric.signed, comparison.difference(method, baseline, metric.key))
    return f"{difference} [{lo}, {hi}]"


def interval(comparison: Comparison, method: str, metric: Metric) -> str:
    """A mean with its interval, such as `0.709 [0.702, 0.716]`."""
    row = comparison.row(method)
    lo, hi = (metric.text(row[f"{metric.key}_{end}"]) for end in ("lo", "hi"))
    return f"{metric.text(row[metric.key])} [{lo}, {hi}]"


def listed(label: Names, methods: Iterable[str]) -> str:
    """Labels, separated by commas."""
    return ", ".join(map(label, methods))


def learning(comparison: Comparison) -> list[Finding]:
    """Is each adapter significantly above its floors by both evaluators?"""
    label = comparison.label
    floors = floors_of(comparison)
    what = "DID NOT LEARN" if comparison.protocol == HEADLINE else "ADDS NOTHING TO THE CAPTION"
    learned, alarms = [], []
    for variant in comparison.variants:
        failed = missed_floors(comparison, variant)
        if not any(failed.values()):
            learned.append(variant)
            continue
        reasons = "; ".join(
            f"its {metric.label} does not exceed "
            + " and ".join(
                f"{floor_name(comparison, f)} ({amount(comparison, variant, f, metric)})"
                for f in behind
            )
            for metric, behind in failed.items()
            if behind
        )
        alarms.append(Finding(f"{what}: {label(variant)}: {reasons}.", alarm=True))
    if not learned:
        return alarms
    subject = "Every adapter" if not alarms else listed(label, learned)
    differences = "; ".join(
        f"{metric.label} exceeds "
        + " and ".join(
            f"{floor_name(comparison, f)} by {gains(comparison, learned, f, metric)}"
            for f in floors
        )
        for metric in SIMILARITIES
    )
    text = f"{subject} learned to use the image prompt: {differences}"
    text += "; the intervals of these differences exclude zero."
    return [*alarms, Finding(text)]


def floors_of(comparison: Comparison) -> tuple[str, str]:
    """The methods that an adapter which has learned is better than."""
    return PROTOCOLS[comparison.protocol].floor, SHUFFLED


def missed_floors(comparison: Comparison, variant: str) -> dict[Metric, list[str]]:
    """By evaluator, the floors that an adapter is not significantly better than."""
    floors = floors_of(comparison)
    return {
        metric: [f for f in floors if significance_sign(comparison, variant, f, metric) <= 0]
        for metric in SIMILARITIES
    }


def gains(comparison: Comparison, variants: Iterable[str], floor: str, metric: Metric) -> str:
    """Smallest and largest difference to a floor, such as `+0.12 to +0.21`."""
    differences = [comparison.difference(v, floor, metric.key)[0] for v in variants]
    ends = dict.fromkeys(map(metric.signed, (min(differences), max(differences))))
    return " to ".join(ends)


def agreement(comparison: Comparison) -> list[Finding]:
    """On which pairs (two adapters, or an adapter and text only) the two evaluators agree."""
    label = comparison.label
    pairs = [*combinations(comparison.variants, 2)]
    pairs += [(variant, "text_only") for variant in comparison.variants]
    signs = {
        pair: [significance_sign(comparison, *pair, m) for m in SIMILARITIES] for pair in pairs
    }
    names = [metric.label for metric in SIMILARITIES]
    sentences = [
        Finding(
            f"EVALUATORS CONTRADICT EACH OTHER on {label(a)} against {label(b)}: "
            + ", ".join(f"{m.label} {amount(comparison, a, b, m)}" for m in SIMILARITIES)
            + ".",
            alarm=True,
        )
        for (a, b), (first, second) in signs.items()
        if first * second < 0
    ]
    agreed = {pair: sign for pair, (sign, other) in signs.items() if sign * other > 0}
    text = f"{' and '.join(names)} both find a significant difference, the same way, on "
    text += f"{len(agreed)} of {len(pairs)} pairs"
    sentences.append(Finding(f"{text}{': ' if agreed else ''}{orders(comparison, agreed)}."))
    for place, name in enumerate(names):
        alone = {pair: both[place] for pair, both in signs.items() if both[place] and not all(both)}
        if alone:
            sentences.append(Finding(f"Significant by {name} only: {orders(comparison, alone)}."))
    return sentences


def orders(comparison: Comparison, signs: Mapping[tuple[str, str], int]) -> str:
    """Pairs as text, grouped by the better method: `A over B, C; D over E`.

    Args:
        signs: +1 if the first of a pair is better, -1 if the second is.
    """
    label = comparison.label
    groups: dict[str, list[str]] = {}
    for (a, b), sign in signs.items():
        better, worse = (a, b) if sign > 0 else (b, a)
        groups.setdefault(better, []).append(worse)
    return "; ".join(
        f"{label(better)} over {listed(label, worse)}" for better, worse in groups.items()
    )


def floor_name(comparison: Comparison, floor: str) -> str:
    """Name of a floor for use in a sentence."""
    return (
        "its own shuffled reference"
        if floor == SHUFFLED
        else f'"{comparison.label(floor).lower()}"'
    )


def ranked(comparison: Comparison, metric: Metric) -> list[str]:
    """The variants, best first."""
    values = {v: metric.sign * comparison.row(v)[metric.key] for v in comparison.variants}
    return sorted(values, key=values.__getitem__, reverse=True)


def best(comparison: Comparison) -> list[Finding]:
    """The best variant by each metric, and those that do not differ significantly from it."""
    label = comparison.label
    sentences = []
    for metric in SCORES:
        first, *others = ranked(comparison, metric)
        text = f"Best on {metric.label}: {label(first)}, {interval(comparison, first, metric)}"
        ties = [o for o in others if significance_sign(comparison, first, o, metric) == 0]
        if ties:
            text += f"; not significantly better than {listed(label, ties)}"
        elif others:
            ahead = amount(comparison, first, others[0], metric)
            text += "; significantly better than every other, the next being "
            text += f"{label(others[0])} by {ahead}"
        sentences.append(Finding(text + "."))
    return sentences


def trade_off(comparison: Comparison) -> list[Finding]:
    """Difference of the lightest variant to the best one by CLIP-I."""
    label = comparison.label
    sizes = {v: int(comparison.row(v)[TRAINABLE.key]) for v in comparison.variants}
    lightest = min(sizes, key=sizes.__getitem__)
    first = ranked(comparison, CLIP_I)[0]
    if len(sizes) < 2:
        return []
    text = f"Lightest: {label(lightest)}, {count_text(sizes[lightest])} trainable parameters"
    if lightest == first:
        return [Finding(f"{text}, which is also the best on {CLIP_I.label}.")]
    share = sizes[lightest] / sizes[first]
    parts = " and ".join(
        f"{m.label} {amount(comparison, lightest, first, m)}" for m in reversed(SCORES)
    )
    return [Finding(f"{text} ({share:.1%} of {label(first)}'s); against {label(first)}: {parts}.")]


def against_text(comparison: Comparison) -> list[Finding]:
    """The adapters compared with the caption without an image prompt."""
    return against(comparison, "text_only", "the caption alone")


def against_training_free(comparison: Comparison) -> list[Finding]:
    """The adapters compared with each method that needs no training."""
    names = comparison.training_free
    return [it for name in names for it in against(comparison, name, comparison.label(name))]


def against(comparison: Comparison, baseline: str, name: str) -> list[Finding]:
    """The adapters compared with a baseline, called `name` in the sentence, by each metric."""
    label = comparison.label
    sentences = []
    for metric in SCORES:
        groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
        for variant in comparison.variants:
            groups[significance_sign(comparison, variant, baseline, metric)].append(variant)
        names = {1: "better", -1: "worse", 0: "no significant difference"}
        parts = [
            f"{names[sign]}: "
            + ("every adapter" if group == comparison.variants else listed(label, group))
            for sign, group in groups.items()
            if group
        ]
        text = f"Against {name} ({metric.label} {interval(comparison, baseline, metric)}), "
        sentences.append(Finding(text + "; ".join(parts) + "."))
    return sentences


def insignificant_pairs(comparison: Comparison) -> list[Finding]:
    """The pairs of adapters that do not differ significantly, by each metric."""
    label = comparison.label
    sentences = []
    for metric in SCORES:
        pairs = list(combinations(comparison.variants, 2))
        tied = [pair for pair in pairs if significance_sign(comparison, *pair, metric) == 0]
        if not pairs:
            continue
        if len(tied) == len(pairs) > 1:
            sentences.append(Finding(f"On {metric.label}, no two adapters differ significantly."))
            continue
        names = "; ".join(f"{label(a)} and {label(b)}" for a, b in tied)
        text = f"no significant difference between {names}"
        text = text if tied else "all pairs of adapters differ significantly"
        sentences.append(Finding(f"On {metric.label}, {text}."))
    return sentences
