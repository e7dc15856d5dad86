"""The images of all methods on one split: variants under every protocol, floors under their own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.config import SampleParams
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.sampling.sampler import sample


@dataclass(frozen=True, slots=True)
class Inputs:
    """Output folders of other stages."""

    encoded: Path
    shards: Path
    backbone: Path
    models: Path
    """`<variant>/` of every variant."""


def sample_methods(
    params: SampleParams, inputs: Inputs, rows: Mapping[str, Any], split: str, out: Path
) -> list[Path]:
    """Write `out/<method>/<protocol>.tar` for all methods; return the methods' folders.

    A split with fewer than `params.items` items is sampled whole. A killed run resumes the
    method that it was at.

    Args:
        rows: the variants of the parameter file, by name.

    Raises:
        UserError: there is no such split, or an input is missing or does not fit the others.
    """
    items = min(params.items, len(EncodedSplit(inputs.encoded, split)))
    fitting = params.model_copy(update={"items": items})
    for method, protocols in protocols_of(rows).items():
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
        )
    return [out / method for method in protocols_of(rows)]


def protocols_of(variants: Iterable[str]) -> dict[str, list[str]]:
    """The protocols of each method; a floor, which has no adapter, stands for one protocol."""
    floors = {protocol.floor: [name] for name, protocol in PROTOCOLS.items()}
    return {**{variant: list(PROTOCOLS) for variant in variants}, **floors}
