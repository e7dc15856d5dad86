"""The learning rate of each row, chosen on the tuning split by short runs at a few rates."""

from dataclasses import replace
from pathlib import Path

from pydantic import FiniteFloat

from adapterbench.core.config import Count, Section
from adapterbench.core.documents import Document, read_document
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish, write_json
from adapterbench.formats.frames import read_frame
from adapterbench.study.runs import SCORES, Data, Facts, Settings, run_once

FILE = "rates.json"
CHOOSING = ("clip_i", "neutral")
"""Scores whose mean chooses the rate; R@1 is left out, as it is too coarse for short runs."""

SHOWN = (*CHOOSING, "r_at_1")


class RatesParams(Section):
    """The sweep, the same for every row."""

    steps: Count
    learning_rates: tuple[float, ...]


class Rates(Document):
    """Content of `rates.json`."""

    best: FiniteFloat
    """The learning rate whose scores have the highest mean."""
    scores: dict[str, dict[str, FiniteFloat] | None]
    """Mean scores by learning rate; None: the run diverged."""


def sweep(params: RatesParams, settings: Settings, data: Data, out: Path) -> Rates:
    """Run the row at every rate; write `out/rates.json` and the runs beside it.

    Raises:
        UserError: every run diverged, or see `run_once`.
    """
    means: dict[str, dict[str, float] | None] = {}
    with publish(out) as beside:
        for rate in params.learning_rates:
            changes = {"learning_rate": rate, "steps": params.steps}
            train = settings.train.model_copy(update=changes)
            folder = beside / f"{rate:g}"
            facts = run_once(replace(settings, train=train), data, folder, lambda *_: None)
            means[f"{rate:g}"] = mean_scores(facts, folder)
        rates = Rates(best=best_of(settings.row, means), scores=means)
        write_json(beside / FILE, rates.model_dump())
    return rates


def mean_scores(facts: Facts, folder: Path) -> dict[str, float] | None:
    """Mean scores of a run; None if it diverged."""
    if facts.diverged:
        return None
    return {
        str(name): float(mean) for name, mean in read_frame(folder / SCORES, SHOWN).mean().items()
    }


def best_of(row: str, means: dict[str, dict[str, float] | None]) -> float:
    """The rate with the highest mean score over `CHOOSING`.

    Raises:
        UserError: every run diverged.
    """
    converged = {rate: scores for rate, scores in means.items() if scores}
    if not converged:
        raise UserError(f"{row} diverged at every learning rate ({', '.join(means)}): lower them")
    return float(max(converged, key=lambda rate: sum(converged[rate][name] for name in CHOOSING)))


def read_rates(folder: Path) -> Rates:
    """Read what `sweep` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_document(Rates, folder / FILE, "the learning rates of a row")
