"""Read the runs of the study, check that they can be compared, and pair them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from adapterbench.core.errors import InputError, UserError
from adapterbench.formats.frames import read_frame
from adapterbench.report.intervals import Floats
from adapterbench.report.metrics import CLIP_I, NEUTRAL, R_AT_1
from adapterbench.study.runs.files import SCORES, Facts, read_facts

MEASURES = (CLIP_I, NEUTRAL, R_AT_1)
"""The scores of the study: similarity by two evaluators, and R@1 by the neutral one."""

KEYS = [metric.key for metric in MEASURES]


@dataclass(frozen=True, slots=True)
class Run:
    """A run with the item means of its scores."""

    facts: Facts
    scores: pd.DataFrame | None
    """Index: sorted keys of the items; columns `KEYS`. None: the run diverged."""


def read_runs(folder: Path) -> list[Run]:
    """All runs in a folder, sorted by name, but for those that were killed (hidden folders).

    Raises:
        UserError: there is none, or one is damaged, or two cannot be compared.
    """
    if not (paths := sorted(path for path in folder.glob("[!.]*") if path.is_dir())):
        raise InputError(f"{folder} has no runs: run `make study`", folder)
    runs = [read_run(path) for path in paths]
    check_comparable(runs, folder)
    return runs


def read_run(folder: Path) -> Run:
    """One run.

    Raises:
        UserError: a file is missing or damaged.
    """
    facts = read_facts(folder)
    return Run(facts, None if facts.diverged else item_means(folder / SCORES))


def item_means(path: Path) -> pd.DataFrame:
    """Scores of the items, means over their images.

    Raises:
        UserError: the file is missing or damaged, or a score is not finite.
    """
    frame = read_frame(path, ["key", *KEYS])
    if not np.isfinite(frame[KEYS].astype(float)).all(axis=None):
        raise InputError(f"{path} has a score that is not a finite number", path)
    return frame.groupby("key")[KEYS].mean().astype(float)


def check_comparable(runs: Sequence[Run], folder: Path) -> None:
    """Check that runs share base model, device, split and items.

    Raises:
        UserError: two differ.
    """
    first, *others = runs
    for run in others:
        for what in ("backbone", "device", "split"):
            one, other = (getattr(it.facts, what) for it in (first, run))
            if one != other:
                raise UserError(
                    f"{folder} mixes runs of two kinds: {name(first.facts)} has {what} {one!r}, "
                    f"{name(run.facts)} has {other!r}; make them anew with `make study`"
                )
    scored = [run for run in runs if run.scores is not None]
    for run in scored[1:]:
        if not run.scores.index.equals(scored[0].scores.index):  # type: ignore[union-attr]  # scored
            raise UserError(
                f"{folder}: {name(run.facts)} was scored on other items than "
                f"{name(scored[0].facts)}; make them anew with `make study`"
            )


def check_same_base(groups: Mapping[str, Sequence[Run]]) -> None:
    """Check that all groups were made over one base model; their devices and splits may differ.

    Raises:
        UserError: two groups have different ones.
    """
    (first, (known, *_)), *others = groups.items()
    for group, (run, *_) in others:
        if run.facts.backbone != known.facts.backbone:
            raise UserError(
                f"the runs of {group} are over another base model than those of {first}; make them "
                "anew with `make study`"
            )


def name(facts: Facts) -> str:
    """A run in words."""
    return f"{facts.row} (seed {facts.seed}, {facts.steps} steps)"


def select(runs: Iterable[Run], row: str, **settings: int | None) -> list[Run]:
    """The runs of a row with these settings, sorted by seed.

    Raises:
        UserError: there is none.
    """
    chosen = [
        run
        for run in runs
        if run.facts.row == row and all(getattr(run.facts, k) == v for k, v in settings.items())
    ]
    if not chosen:
        wanted = ", ".join(f"{k} = {v}" for k, v in settings.items())
        raise UserError(f"no run of {row} with {wanted}: run `make study`")
    return sorted(chosen, key=lambda run: run.facts.seed)


def scores(runs: Sequence[Run], key: str) -> Floats:
    """One score of runs with several seeds, `(S, N)`.

    Raises:
        UserError: a run diverged.
    """
    for run in runs:
        if run.scores is None:
            raise UserError(f"{name(run.facts)} diverged: {run.facts.diverged}")
    return np.stack([run.scores[key].to_numpy() for run in runs if run.scores is not None])


def difference(runs: Sequence[Run], others: Sequence[Run], key: str) -> Floats:
    """Paired differences of a score over seeds and items, `(S, N)`.

    Raises:
        UserError: a seed of one side is missing on the other, or a run diverged.
    """
    seeds, wanted = ([run.facts.seed for run in side] for side in (runs, others))
    if seeds != wanted:
        one, other = runs[0].facts.row, others[0].facts.row
        raise UserError(
            f"{one} has the seeds {seeds} and {other} the seeds {wanted}: they must be the same"
        )
    return scores(runs, key) - scores(others, key)
