"""The images of all methods on one split.

Variants and training-free methods have images of every protocol, floors of their own one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core import registry
from adapterbench.core.config import SampleParams, parse
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.sampling.sampler import TrainingFree, sample


@dataclass(frozen=True, slots=True)
class Inputs:
    """Output folders of other stages."""

    encoded: Path
    shards: Path
    backbone: Path
    models: Path
    """`<variant>/` of every variant."""


def sample_methods(
    params: SampleParams,
    inputs: Inputs,
    rows: Mapping[str, Any],
    training_free: Mapping[str, Any],
    split: str,
    out: Path,
) -> list[Path]:
    """Write `out/<method>/<protocol>.tar` for all methods; return the methods' folders.

    A split with fewer than `params.items` items is sampled whole. A killed run resumes the
    method that it was at.

    Args:
        rows: the variants of the parameter file, by name.
        training_free: the fields of training-free methods, by name.

    Raises:
        UserError: there is no such split, or an input is missing or does not fit the others.
    """
    items = min(params.items, len(EncodedSplit(inputs.encoded, split)))
    fitting = params.model_copy(update={"items": items})
    without_training = {n: training_free_method(n, row) for n, row in training_free.items()}
    protocols_by_method = protocols_of([*rows, *training_free])
    for method, protocols in protocols_by_method.items():
        trained = method in rows
        sample(
            fitting,
            inputs.encoded,
            inputs.backbone,
            adapter=inputs.models / method if trained else None,
            protocols=protocols,
            out=out / method,
            shards=inputs.shards,
            variant=parse_variant(rows[method], f"variants.{method}") if trained else None,
            split=split,
            training_free=without_training.get(method),
        )
    return [out / method for method in protocols_by_method]


def protocols_of(methods: Iterable[str]) -> dict[str, list[str]]:
    """The protocols of each method; a floor, which sees no image, stands for one protocol."""
    floors = {protocol.floor: [name] for name, protocol in PROTOCOLS.items()}
    return {**{method: list(PROTOCOLS) for method in methods}, **floors}


def training_free_method(name: str, fields: Any) -> TrainingFree:
    """The training-free method of this name.

    Raises:
        UserError: there is none, or a field is missing or wrong.
    """
    module = registry.load("adapterbench.sampling.training_free", name)
    params = parse(module.Params, fields, f"training_free.{name}")
    return TrainingFree(params, module.build, module.predictions)
