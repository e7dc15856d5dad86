"""The learning rate of each row: short runs at a few rates, judged by the loss on unseen images.

The loss is measured with the same noise and timesteps for every run, so that it separates rates
that the scores of a few generated images could not.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import FiniteFloat

from adapterbench.core.documents import Document, read_document
from adapterbench.core.errors import DivergedError, UserError
from adapterbench.core.files import publish, write_json
from adapterbench.study.runs.files import Data, RatesParams
from adapterbench.study.runs.run import Settings, train

FILE = "rates.json"


class Rates(Document):
    """Content of `rates.json`."""

    best: FiniteFloat
    """The learning rate with the lowest loss."""
    losses: dict[str, FiniteFloat | None]
    """Loss on unseen images by learning rate; None: the run diverged."""


def sweep(params: RatesParams, settings: Settings, data: Data, out: Path) -> Rates:
    """Train the row at every rate; write `out/rates.json`.

    Raises:
        UserError: every run diverged, or see `runs.train`.
    """
    losses: dict[str, float | None] = {}
    for rate in params.learning_rates:
        changes = {"learning_rate": rate, "steps": params.steps}
        changed = settings.train.model_copy(update=changes)
        losses[f"{rate:g}"] = unseen_loss(replace(settings, train=changed), data)
    rates = Rates(best=best_of(settings.row, losses), losses=losses)
    with publish(out) as beside:
        beside.mkdir()
        write_json(beside / FILE, rates.model_dump())
    return rates


def unseen_loss(settings: Settings, data: Data) -> float | None:
    """Loss on images of the split after a training; None if it diverged."""
    with TemporaryDirectory() as folder:
        try:
            _, mechanism = train(settings, data, Path(folder, "adapter"))
        except DivergedError:
            return None
    return mechanism.unseen_loss


def best_of(row: str, losses: dict[str, float | None]) -> float:
    """The rate with the lowest loss.

    Raises:
        UserError: every run diverged.
    """
    converged = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not converged:
        raise UserError(f"{row} diverged at every learning rate ({', '.join(losses)}): lower them")
    return float(min(converged, key=converged.__getitem__))


def read_rates(folder: Path) -> Rates:
    """Read what `sweep` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_document(Rates, folder / FILE, "the learning rates of a row")
