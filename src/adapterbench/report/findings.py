"""What a comparison shows, in plain words made from its numbers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from adapterbench.formats.generated import PROTOCOLS
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
    """Whether the reader must not miss it."""


def findings(comparison: Comparison) -> list[Finding]:
    """The sentences, alarms first."""
    sentences: Iterable[Callable[[Comparison], list[Finding]]] = (
        learning,
        agreement,
        best,
        trade_off,
        against_text,
        inseparable,
    )
    found = [finding for sentence in sentences for finding in sentence(comparison)]
    return sorted(found, key=lambda finding: not finding.alarm)


def significance_sign(comparison: Comparison, method: str, baseline: str, metric: Metric) -> int:
    """+1 where `method` is better than `baseline`, -1 worse, 0 where they are not separable."""
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
    """Labels as an enumeration."""
    return ", ".join(map(label, methods))


def learning(comparison: Comparison) -> list[Finding]:
    """Whether both evaluators see each adapter pass its floors, intervals apart."""
    label = comparison.label
    floors = (PROTOCOLS[comparison.protocol].floor, SHUFFLED)
    learnt, alarms = [], []
    for variant in comparison.variants:
        failed = {
            metric: [f for f in floors if significance_sign(comparison, variant, f, metric) <= 0]
            for metric in SIMILARITIES
        }
        if not any(failed.values()):
            learnt.append(variant)
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
        alarms.append(Finding(f"DID NOT LEARN: {label(variant)}: {reasons}.", alarm=True))
    if not learnt:
        return alarms
    who = "Every adapter" if not alarms else listed(label, learnt)
    over = "; ".join(
        f"{metric.label} exceeds "
        + " and ".join(
            f"{floor_name(comparison, f)} by {gains(comparison, learnt, f, metric)}" for f in floors
        )
        for metric in SIMILARITIES
    )
    text = f"{who} learned to use the image prompt: {over}"
    text += "; the intervals of these differences exclude zero."
    return [*alarms, Finding(text)]


def gains(comparison: Comparison, variants: Iterable[str], floor: str, metric: Metric) -> str:
    """The smallest and the largest lead over a floor, such as `+0.12 to +0.21`."""
    leads = [comparison.difference(v, floor, metric.key)[0] for v in variants]
    ends = dict.fromkeys(map(metric.signed, (min(leads), max(leads))))
    return " to ".join(ends)


def agreement(comparison: Comparison) -> list[Finding]:
    """What the two evaluators say of each pair of adapters, and of each adapter and its caption."""
    label = comparison.label
    pairs = [*combinations(comparison.variants, 2)]
    pairs += [(variant, "text_only") for variant in comparison.variants]
    sides = {
        pair: [significance_sign(comparison, *pair, m) for m in SIMILARITIES] for pair in pairs
    }
    names = [metric.label for metric in SIMILARITIES]
    found = [
        Finding(
            f"EVALUATORS CONTRADICT EACH OTHER on {label(a)} against {label(b)}: "
            + ", ".join(f"{m.label} {amount(comparison, a, b, m)}" for m in SIMILARITIES)
            + ".",
            alarm=True,
        )
        for (a, b), (first, second) in sides.items()
        if first * second < 0
    ]
    agreed = {pair: side for pair, (side, other) in sides.items() if side * other > 0}
    text = f"{' and '.join(names)} agree, intervals apart, on {len(agreed)} of {len(pairs)} pairs"
    found.append(Finding(f"{text}{': ' if agreed else ''}{orders(comparison, agreed)}."))
    for place, name in enumerate(names):
        alone = {pair: both[place] for pair, both in sides.items() if both[place] and not all(both)}
        if alone:
            found.append(Finding(f"Only {name} tells apart: {orders(comparison, alone)}."))
    return found


def orders(comparison: Comparison, sides: Mapping[tuple[str, str], int]) -> str:
    """Pairs with the better one in front, one enumeration for each that is in front.

    Args:
        sides: +1 where a pair's first is better, -1 where its second is.
    """
    label = comparison.label
    behind: dict[str, list[str]] = {}
    for (a, b), side in sides.items():
        front, back = (a, b) if side > 0 else (b, a)
        behind.setdefault(front, []).append(back)
    return "; ".join(
        f"{label(front)} over {listed(label, backs)}" for front, backs in behind.items()
    )


def floor_name(comparison: Comparison, floor: str) -> str:
    """A floor inside a sentence."""
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
    """The best variant on each metric, and which others cannot be told from it."""
    label = comparison.label
    found = []
    for metric in SCORES:
        first, *others = ranked(comparison, metric)
        text = f"Best on {metric.label}: {label(first)}, {interval(comparison, first, metric)}"
        ties = [o for o in others if significance_sign(comparison, first, o, metric) == 0]
        if ties:
            text += f"; not separable from it: {listed(label, ties)}"
        elif others:
            ahead = amount(comparison, first, others[0], metric)
            text += f"; apart from every other, the next being {label(others[0])} by {ahead}"
        found.append(Finding(text + "."))
    return found


def trade_off(comparison: Comparison) -> list[Finding]:
    """What the lightest variant gives up against the best one."""
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
    """How the adapters stand to the caption without an image prompt."""
    label = comparison.label
    found = []
    for metric in SCORES:
        groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
        for variant in comparison.variants:
            groups[significance_sign(comparison, variant, "text_only", metric)].append(variant)
        names = {1: "better", -1: "worse", 0: "not separable"}
        parts = [
            f"{names[side]}: "
            + ("every adapter" if who == comparison.variants else listed(label, who))
            for side, who in groups.items()
            if who
        ]
        text_only = interval(comparison, "text_only", metric)
        text = f"Against the caption alone ({metric.label} {text_only}), "
        found.append(Finding(text + "; ".join(parts) + "."))
    return found


def inseparable(comparison: Comparison) -> list[Finding]:
    """The pairs of adapters whose difference may be zero."""
    label = comparison.label
    found = []
    for metric in SCORES:
        pairs = list(combinations(comparison.variants, 2))
        ties = [pair for pair in pairs if significance_sign(comparison, *pair, metric) == 0]
        if not pairs:
            continue
        if len(ties) == len(pairs) > 1:
            found.append(Finding(f"On {metric.label}, no two adapters are apart."))
            continue
        names = "; ".join(f"{label(a)} and {label(b)}" for a, b in ties)
        text = f"the interval of the difference includes zero for {names}" if ties else ""
        text = text or "all pairs of adapters are apart"
        found.append(Finding(f"On {metric.label}, {text}."))
    return found
