"""The hours that the study takes, and those of the original study's models."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import Field

from adapterbench.cli.architecture import find
from adapterbench.cli.costs import Device
from adapterbench.cli.estimate import Plan, estimate
from adapterbench.cli.settings import settings, write
from adapterbench.core.config import (
    PARAMS,
    Count,
    SampleParams,
    Section,
    load_params,
    load_row,
    read_params,
)
from adapterbench.study.params import (
    ConfirmationParams,
    CurvesParams,
    DataSizesParams,
    ScreeningParams,
)
from adapterbench.study.runs.files import RatesParams

Positive = Annotated[float, Field(gt=0)]


class DeviceParams(Section):
    """Throughput of a device; see `adapterbench plan`."""

    tflops: Positive
    utilisation: Annotated[float, Field(gt=0, le=1)]

    def device(self) -> Device:
        """The device."""
        return Device(self.tflops, self.utilisation)


class OriginalParams(DeviceParams):
    """The original study's models on a device."""

    profile: str
    samples: Count
    """Images to train on."""


class PlanParams(Section):
    """What is planned."""

    study: DeviceParams
    original: OriginalParams


def plan(params: PlanParams, backbone: Path, project: Path) -> dict[str, Any]:
    """Runs, operations and hours of each group of the study; facts of the original's models.

    Args:
        backbone: folder of the study's base model.
        project: parameter file of the project, for the sections that the study does not have.

    Raises:
        UserError: a section or a configuration is missing or invalid.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, PARAMS.name)
        write(path, {**read_params(project), **read_params()})
        costs = estimate(find(None, backbone), path, None)
    device = params.study.device()
    groups = {
        name: {
            "runs": len(runs),
            "flops": (flops := sum(operations(costs, *run) for run in runs)),
            "hours": device.hours(flops),
        }
        for name, runs in all_runs(costs).items()
    }
    return {"groups": groups, "original": original_facts(params.original)}


def original_facts(params: OriginalParams) -> dict[str, Any]:
    """Costs of the finalists over the original study's models and data."""
    finalists = load_params(ConfirmationParams, "confirmation").rows
    rows = {name: load_row(name) for name in finalists}
    with settings(None, params.profile) as profile, TemporaryDirectory() as folder:
        path = Path(folder, PARAMS.name)
        write(path, {**read_params(profile), "variants": rows})
        costs = estimate(find(params.profile, None), path, params.samples)
    return costs.facts(params.device())


def all_runs(costs: Plan) -> dict[str, list[tuple[str, int, int]]]:
    """Row, optimiser steps and generated images of each run, by group."""
    rates, screening = load_params(RatesParams, "rates"), load_params(ScreeningParams, "screening")
    curves, sizes = load_params(CurvesParams, "curves"), load_params(DataSizesParams, "data_sizes")
    final, drawn = (
        load_params(ConfirmationParams, "confirmation"),
        load_params(SampleParams, "sample"),
    )
    images = drawn.items * drawn.images_per_item
    return {
        "rates": [(row, rates.steps, 0) for row in costs.training for _ in rates.learning_rates],
        "screening": [(row, screening.steps, images) for row in costs.training],
        "curves": [
            (row, steps, images)
            for row in curves.rows
            for _ in curves.seeds
            for steps in curves.steps
        ],
        "data_sizes": [(row, sizes.steps, images) for row in sizes.rows for _ in sizes.samples],
        "confirmation": [(row, final.steps, images) for row in final.rows for _ in final.seeds],
    }


def operations(costs: Plan, row: str, steps: int, images: int) -> int:
    """Operations of a run."""
    image = costs.sampling.flops // costs.sampling.images
    return steps * costs.training[row].flops_per_step + images * image
