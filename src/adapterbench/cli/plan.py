"""`adapterbench plan`: estimate the costs of a run."""

import json
from math import inf
from typing import Annotated

import typer
from typer import Option

from adapterbench.cli.architecture import find
from adapterbench.cli.options import Backbone, Json, Params, Profile
from adapterbench.cli.settings import settings
from adapterbench.core.errors import UserError
from adapterbench.core.imports import fast_imports


def plan(
    params: Params = None,
    profile: Profile = None,
    backbone: Backbone = None,
    tflops: Annotated[
        float | None, Option(help="Peak of your device, TFLOP/s, at the precision of the run.")
    ] = None,
    utilisation: Annotated[
        float,
        Option(help="Share of that peak that you reach, 0 to 1; time a few steps to know it."),
    ] = 0.15,
    samples: Annotated[
        int | None,
        Option(help="Images to encode, one caption each (default: those of data/shards).", min=1),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate parameters, memory, disk space, operations and hours before a run.

    Operations are counted on the real model and adapters without weights, forward and backward;
    optimiser memory is fp32 weights, gradients and AdamW's two moments. With --tflops, operations
    become hours: peak x utilisation is the throughput of your device. Data sheets give 989 for an
    H100, 312 for an A100 and 165 for an RTX 4090 (bf16, dense). The default utilisation was
    measured on an H100, which trained 32 images at a time; with 8 it reached half of that. The
    hours do not include encoding.

    `adapterbench plan --profile sd15 --samples 2919397 --tflops 989` estimates the original
    study's models on CC3M with an H100; `adapterbench plan` the run of params.yaml.
    """
    check(tflops, utilisation)
    architecture = find(profile, backbone)
    with fast_imports():  # slow imports, not needed for `--help` or a usage error
        from adapterbench.cli.costs import Device
        from adapterbench.cli.estimate import estimate
        from adapterbench.cli.plan_table import show

    device = Device(tflops, utilisation) if tflops else None
    with settings(params, profile) as path:
        facts = estimate(architecture, path, samples).facts(device)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        show(facts)


def check(tflops: float | None, utilisation: float) -> None:
    """Check the two numbers of a device.

    Raises:
        UserError: a number is out of range.
    """
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation = {utilisation}: give a share above 0, up to 1")
    if tflops is not None and not 0 < tflops < inf:
        raise UserError(f"--tflops = {tflops}: give a number above 0")
