"""Sections of the study's params.yaml: which rows, seeds, lengths and sets of images are run."""

from typing import Annotated

from pydantic import Field

from adapterbench.core.config import Count, Section, Seed

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class ScreeningParams(Section):
    """Every row once, scored on the split `tuning`."""

    steps: Count
    seed: Seed


class RepeatedParams(Section):
    """Rows of the screening that are trained again from nothing."""

    rows: Names


class CurvesParams(Section):
    """Some rows with several seeds, trained for several lengths."""

    rows: Names
    seeds: Annotated[tuple[Seed, ...], Field(min_length=2)]
    steps: Annotated[tuple[Count, ...], Field(min_length=2)]


class DataSizesParams(Section):
    """Some rows, trained on parts of the images."""

    rows: Names
    samples: Annotated[tuple[Count, ...], Field(min_length=1)]
    steps: Count
    seed: Seed


class ConfirmationParams(Section):
    """The finalists with new seeds, scored on the split that the project's table scores."""

    rows: Names
    seeds: Annotated[tuple[Seed, ...], Field(min_length=2)]
    steps: Count


class ReportParams(Section):
    """How the questions are answered."""

    original: str
    """Row with which the others are compared."""
    network: str
    """Row of the question of depth: an MLP in place of the linear projection."""
    depth: Names
    """Rows of the question of depth, which differ in the projection alone."""
    margin: Annotated[float, Field(gt=0, lt=1)]
    """A row is not worse if it is less than this share of the way from the floor `no_prompt` to the
    ceiling `vae` below the original."""
    budget: Annotated[float, Field(gt=0, lt=1)]
    """Share of the original's trainable parameters that a smaller row may have."""
    level: Annotated[float, Field(gt=0, lt=1)]
    """Level of all tests."""
