"""Read and check the per-image scores of all methods; average them to one value per item."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from adapterbench.core.errors import InputError, UserError
from adapterbench.formats.frames import read_frame
from adapterbench.report.methods import BASELINES, REAL, SHUFFLED
from adapterbench.report.metrics import DIVERSITY, SCORES, SETS

log = logging.getLogger(__name__)

KEYS = [metric.key for metric in SCORES]
SHUFFLED_KEYS = [f"{key}_shuffled" for key in KEYS]
ROUNDING = 1e-4
"""Rounding tolerance: a cosine may exceed 1 by this much."""
SET_KEYS = [metric.key for metric in SETS]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Item means of one protocol: frames of N rows (sorted item keys) with a column per score.

    Every frame has the same rows, so the difference of two methods is paired by item.
    """

    methods: dict[str, pd.DataFrame]
    """Variants and training-free methods in the given order, then the baselines."""
    shuffled: dict[str, pd.DataFrame]
    """Each variant's images compared with another item's caption and reference."""
    sets: pd.DataFrame
    """One row per method, columns `SETS`; NaN if not measured."""
    images: dict[str, int]
    """Images per item (K) of each method."""

    def of(self, method: str, variant: str) -> pd.DataFrame:
        """Scores of the baseline `method` of `variant`; the shuffled reference is the variant's."""
        return self.shuffled[variant] if method == SHUFFLED else self.methods[method]


def read_scores(
    folder: Path, variants: Sequence[str], protocol: str, training_free: Collection[str] = ()
) -> Scores:
    """Read `folder/<method>.parquet` for the variants, training-free methods and baselines.

    Raises:
        UserError: a file is missing or damaged, lacks a column or rows, has a score that is not a
            finite number, or has other items or another K than the first variant.
    """
    warn_unknown_methods(folder, [*variants, *training_free])
    raw = {v: read_method(folder / f"{v}.parquet", KEYS + SHUFFLED_KEYS) for v in variants}
    others = [*training_free, *(b for b in BASELINES if b != SHUFFLED)]
    raw |= {method: read_method(folder / f"{method}.parquet", KEYS) for method in others}
    rows = {m: of_protocol(frame, protocol, m, m in BASELINES) for m, frame in raw.items()}
    images = {method: images_per_item(frame, method) for method, frame in rows.items()}
    items = {method: frame.groupby("key").mean(numeric_only=True) for method, frame in rows.items()}
    check_pairing(items, images)
    shuffled = {v: items[v][SHUFFLED_KEYS].set_axis(KEYS, axis=1) for v in variants}
    items[SHUFFLED] = sum(shuffled.values()) / len(variants)  # type: ignore[assignment]
    images[SHUFFLED] = images[variants[0]]
    order = [*variants, *training_free, *BASELINES]
    sets = pd.DataFrame({method: frame[SET_KEYS].mean() for method, frame in rows.items()}).T
    return Scores(
        methods={method: items[method][KEYS] for method in order},
        shuffled=shuffled,
        sets=sets.reindex(order),
        images=images,
    )


def warn_unknown_methods(folder: Path, known: Sequence[str]) -> None:
    """Log score files that belong to no row of the table."""
    for path in sorted(folder.glob("*.parquet")):
        if path.stem not in {*known, *BASELINES}:
            log.warning("%s belongs to no variant of params.yaml: ignored", path)


def read_method(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read one method's table and check columns, values and duplicates."""
    frame = read_frame(path, ["protocol", "key", "k", *columns, *SET_KEYS])
    for column in columns:
        check_finite(frame, column, path)
    several = frame.groupby(["protocol", "key"])["k"].transform("count") > 1
    check_finite(frame[several], DIVERSITY.key, path, largest=2)
    if twice := frame.duplicated(["protocol", "key", "k"]).sum():
        raise InputError(f"{path} holds {twice} image(s) twice", path)
    return frame


def check_finite(frame: pd.DataFrame, column: str, path: Path, largest: float = 1) -> None:
    """Check that a column has finite values within `[-largest, largest]`.

    Raises:
        UserError: a value is not; the message names the first image.
    """
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float)
    bad = frame[~(np.abs(values) <= largest + ROUNDING)]  # NaN is not
    if len(bad):
        first = bad.iloc[0]
        raise UserError(
            f"{path}: {len(bad)} value(s) of {column} are not finite numbers within "
            f"[{-largest}, {largest}], first at {first['key']} k={first['k']}: see whether its "
            "training diverged, then score it again"
        )


def of_protocol(frame: pd.DataFrame, protocol: str, method: str, baseline: bool) -> pd.DataFrame:
    """The rows of `protocol`; a baseline with a single protocol is used for every one."""
    rows = frame[frame["protocol"] == protocol]
    if rows.empty and baseline and frame["protocol"].nunique() == 1:
        rows = frame
    if rows.empty:
        raise UserError(
            f"scores of {method} have no rows of protocol {protocol!r}: generate and score its "
            "images under it"
        )
    return rows


def images_per_item(frame: pd.DataFrame, method: str) -> int:
    """K of a method.

    Raises:
        UserError: some items have fewer images than others.
    """
    counts = frame.groupby("key")["k"].count()
    incomplete = counts[counts < counts.max()]
    if len(incomplete):
        raise UserError(
            f"scores of {method} are incomplete: {len(incomplete)} item(s), such as "
            f"{incomplete.index[0]}, have fewer than {counts.max()} images: generate and score all"
        )
    return int(counts.max())


def check_pairing(items: dict[str, pd.DataFrame], images: dict[str, int]) -> None:
    """Check that all methods have the items and the K of the first one.

    K is not checked for real images: there is one per item.

    Raises:
        UserError: a method has not.
    """
    first = next(iter(items))
    for method, frame in items.items():
        if unpaired := set(frame.index) ^ set(items[first].index):
            raise UserError(
                f"{method} and {first} were scored on different items ({len(unpaired)} in one "
                f"only, such as {min(unpaired)}): generate and score both with the same parameters"
            )
        if method not in REAL and images[method] != images[first]:
            raise UserError(
                f"{method} has {images[method]} images per item, {first} has {images[first]}: "
                "generate and score both with the same parameters"
            )
