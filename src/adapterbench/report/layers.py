"""Which layer of an adapter carries what: effects of single layers, and presets from them.

The effect of a layer on a score is the mean of two paired differences: this layer on alone minus
all off, and all on minus this layer off alone. They are the first and the last of the terms that a
Shapley value averages. The first alone misses layers that act together only, the second misses
layers that can replace each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from adapterbench.core.config import PARAMS, CompareParams, LayersParams, load_params
from adapterbench.core.errors import InputError
from adapterbench.report.metrics import ASPECTS, COLOUR, SHAPE, Metric
from adapterbench.report.sheets import Sheet
from adapterbench.report.table import mean_and_interval, read_csv, write_csv

FILE = "layers.csv"
LAYERS, CHECK = "layers", "check"
"""Parts of the table: single layers, and presets on other items."""
ALL, OFF = "all", "off"
"""All layers on, and none."""
EFFECTS = {"alone": "On alone", "without": "Off alone", "mean": "Mean of both"}

DIFFERENCE = ["difference", "lo", "hi"]
COLUMNS = ["part", "layer", "effect", "aspect", "n", *DIFFERENCE, "share"]
PRECISION = dict.fromkeys([*DIFFERENCE, "share"], 6)

PRESETS: dict[str, tuple[Metric, Metric]] = {"style": (COLOUR, SHAPE), "layout": (SHAPE, COLOUR)}
"""A preset, the aspect that its layers carry, and the other one."""

RULE = (
    "A layer is in a preset if its effect on the preset's aspect (style: colour, layout: shape) is "
    "above 0 by its interval and, as a share of the strongest layer's, larger than its effect on "
    "the other aspect."
)

Row = tuple[str, str]
"""Layer, preset or `ALL`; and the effect, a key of `EFFECTS`."""


def folder(illustrations: Path, variant: str) -> Path:
    """Folder of what stage `layers` writes of a variant."""
    return illustrations / f"{variant}.layers"  # no name of a variant has a dot


def image_tar(folder: Path, setting: str) -> Path:
    """Tar of the images of a setting, such as `ALL`, `OFF` or a preset."""
    return folder / f"{setting}.tar"


def effects(part: str, series: Mapping[Row, pd.DataFrame], params: CompareParams) -> pd.DataFrame:
    """Effects with intervals: `COLUMNS`, one row per row of `series` and aspect.

    `share` is an effect over that of all layers; NaN where that is not above 0 by its interval.

    Args:
        part: `LAYERS` or `CHECK`.
        series: paired differences, a row per item and a column per aspect; the first are of `ALL`.
    """
    frames = []
    for aspect in ASPECTS:
        items = [differences[aspect.key] for differences in series.values()]
        mean, lo, hi = mean_and_interval(items, params)
        frame = pd.DataFrame(list(series), columns=["layer", "effect"]).assign(
            aspect=aspect.key,
            n=len(items[0]),
            difference=mean,
            lo=lo,
            hi=hi,
            share=mean / mean[0] if lo[0] > 0 else np.nan,
        )
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True).assign(part=part)
    numbers = table[list(PRECISION)].round(PRECISION) + 0.0  # no negative zeros
    return table.assign(**numbers)[COLUMNS]


def presets(table: pd.DataFrame) -> dict[str, list[str]]:
    """The layers of each preset by `RULE`; a preset without layers is left out."""
    rows = select(table, LAYERS, "mean")
    wide = rows.pivot(index="layer", columns="aspect").loc[rows["layer"].unique()]
    positive = wide["difference"].clip(lower=0)
    strength = (positive / positive.max()).fillna(0)
    chosen = {}
    for name, (own, other) in PRESETS.items():
        carries = (wide["lo"][own.key] > 0) & (strength[own.key] > strength[other.key])
        if carries.any():
            chosen[name] = list(wide.index[carries])
    return chosen


def select(table: pd.DataFrame, part: str, effect: str) -> pd.DataFrame:
    """The rows of an effect of single layers, or of presets."""
    chosen = (table["part"] == part) & (table["effect"] == effect) & (table["layer"] != ALL)
    return table[chosen]


def joint(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of all layers together and of the presets, with names for people."""
    rows = table[(table["layer"] == ALL) | (table["part"] == CHECK)]
    names = {(LAYERS, ALL): "All layers", (CHECK, ALL): "All layers, other items"}
    pairs = zip(rows["part"], rows["layer"], strict=True)
    return rows.assign(layer=[names.get(p, f"Preset {p[1]}, other items") for p in pairs])


def write(table: pd.DataFrame, folder: Path) -> None:
    """Write `layers.csv`."""
    write_csv(table, folder / FILE, PRECISION)


def read(illustrations: Path, params: Path = PARAMS) -> dict[str, pd.DataFrame]:
    """The tables of the variants that the parameter file names, by variant.

    Raises:
        UserError: see `read_table`.
    """
    variants = load_params(LayersParams, "layers", params).variants
    return {variant: read_table(folder(illustrations, variant)) for variant in variants}


def read_table(folder: Path) -> pd.DataFrame:
    """Read the table that `write` wrote.

    Raises:
        UserError: the table is missing or damaged.
    """
    path = folder / FILE
    table = read_csv(path, COLUMNS)
    shares = pd.to_numeric(table["share"], errors="coerce")  # a damaged one is NaN, too
    finite = np.isfinite(table[DIFFERENCE].to_numpy(dtype=float)).all()
    readable = finite and shares.count() == table["share"].count()
    aspects = table.groupby(["part", "layer", "effect"])["aspect"].agg(set)
    if not readable or aspects.empty or any(found != {a.key for a in ASPECTS} for found in aspects):
        raise InputError(f"{path} lacks an effect", path)
    return table.assign(share=shares)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Paths of layers, without the ending that all of them share."""
    parts = [path.split(".") for path in paths]
    common = 0
    while len(paths) > 1 and len({tuple(part[-common - 1 :]) for part in parts}) == 1:
        common += 1
    short = [".".join(part[: len(part) - common]) for part in parts]
    return dict(zip(paths, short, strict=True))


def sheet(table: pd.DataFrame) -> Sheet:
    """Effects of single layers, of all together, and of the presets on other items."""
    layers = select(table, LAYERS, "mean")
    names = short_names(layers["layer"].unique().tolist())
    baselines = list(lines(joint(table)))
    rows = [[names[line[0]], *line[1:]] for line in lines(layers)]
    header = ["Layer", "Items", *(aspect.heading for aspect in ASPECTS)]
    return Sheet(header, [*rows, *baselines], baselines=len(baselines))


def lines(rows: pd.DataFrame) -> Iterator[list[str]]:
    """A line per layer: name, number of items, and the effect on each aspect with its interval."""
    for layer, effects_of in rows.groupby("layer", sort=False):
        by_aspect = effects_of.set_index("aspect")
        cells = [
            "{} [{}, {}]".format(*map(aspect.signed, by_aspect.loc[aspect.key, DIFFERENCE]))
            for aspect in ASPECTS
        ]
        yield [str(layer), str(by_aspect["n"].iloc[0]), *cells]


def sentence(table: pd.DataFrame) -> str:
    """The layers of each preset in words."""
    layers = select(table, LAYERS, "mean")["layer"].unique().tolist()
    names, chosen = short_names(layers), presets(table)
    parts = [
        f"{name}: {', '.join(names[layer] for layer in chosen[name])}"
        if name in chosen
        else f"{name}: no layer"
        for name in PRESETS
    ]
    return f"Presets by the rule: {'; '.join(parts)}."
