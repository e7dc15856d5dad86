"""`adapterbench variants`: the trainable parameters of each variant."""

import json

import typer
from rich.console import Console
from rich.table import Table

from adapterbench.cli import settings
from adapterbench.cli.architecture import find, image_encoder
from adapterbench.cli.options import Backbone, Json, Params, Profile
from adapterbench.core.imports import fast_imports


def variants(
    params: Params = None,
    profile: Profile = None,
    backbone: Backbone = None,
    as_json: Json = False,
) -> None:
    """List the variants with their exact number of trainable parameters.

    Each is built over the UNet's configuration, without weights: takes seconds and little memory.

    `adapterbench variants --profile sd15` counts the original study's five on Stable Diffusion
    1.5; `--params mine.yaml --profile sd15` counts yours.
    """
    architecture = find(profile, backbone)
    with fast_imports():
        from adapterbench.adapters.core.build import count_parameters  # slow import

    with settings.settings(params, profile) as path:
        table, unet = settings.variants(path), architecture.config("unet")
        width = image_encoder(architecture, path)["embed_dim"]
    with architecture.building():
        counts = count_parameters(table, unet, width)
    if as_json:
        rows = {n: {**table[n].as_given(), "trainable_params": c} for n, c in counts.items()}
        facts = {"backbone": architecture.name, "embed_dim": width, "variants": rows}
        typer.echo(json.dumps(facts, indent=2))
        return
    shown = Table(title=f"Adapters on {architecture.name}, image embedding of width {width}")
    for heading in ("Variant", "Projection", "Attention"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("Trainable parameters", "Millions"):
        shown.add_column(heading, justify="right")
    for name, count in counts.items():
        parts = (name, table[name].projection, table[name].attention)
        shown.add_row(*parts, f"{count:,}", f"{count / 1e6:.2f}")
    Console().print(shown)
