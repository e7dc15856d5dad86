"""Print a plan as tables."""

from typing import Any

from matplotlib.ticker import EngFormatter
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

OPERATIONS = EngFormatter("FLOP", places=2)
BYTES = EngFormatter("B", places=2)
COLUMNS = {
    "Trainable\nparameters": False,
    "AdamW\nmemory": True,
    "Steps": False,
    "Samples\nseen": False,
    "A step": True,
    "All steps": True,
    "Hours": False,
}
"""Heading -> whether the column's numbers have a unit."""


def show(facts: dict[str, Any]) -> None:
    """Print the output of `Plan.facts`: a row per variant, then the totals of the run."""
    shapes = {name: shape_text(facts["shapes"][name]) for name in ("latents", "text")}
    console = Console()
    console.print(
        f"Backbone {facts['backbone']}: latents {shapes['latents']}, text {shapes['text']}, "
        f"image embedding {facts['shapes']['image']}",
        highlight=False,
    )
    console.print(by_variant(facts))
    console.print(whole_run(facts))


def shape_text(size: tuple[int, ...]) -> str:
    """A shape, such as `4 x 64 x 64`."""
    return " x ".join(map(str, size))


def by_variant(facts: dict[str, Any]) -> Table:
    """One row per training."""
    table = Table(box=SIMPLE, padding=0, pad_edge=False)
    table.add_column("Variant", no_wrap=True)
    for heading, has_unit in COLUMNS.items():
        # on a narrow terminal a unit wraps below its number, so nothing is cut
        table.add_column(heading, justify="right", no_wrap=not has_unit)
    for name, training in facts["training"].items():
        table.add_row(
            str(name),
            f"{training['trainable_params']:,}",
            BYTES(training["optimizer_bytes"]),
            f"{training['steps']:,}",
            f"{training['samples_seen']:,}",
            OPERATIONS(training["flops_per_step"]),
            OPERATIONS(training["flops"]),
            hours(training["hours"]),
        )
    return table


def whole_run(facts: dict[str, Any]) -> Table:
    """The totals of the run."""
    sampled = facts["sampling"]
    table = Table.grid(padding=(0, 2))
    table.add_row("Encoded data", encoded(facts))
    table.add_row("Texts", texts(facts))
    images = f"{sampled['images']:,}, {OPERATIONS(sampled['flops'])}"
    table.add_row("Images to sample", f"{images}, {hours(sampled['hours'])} h")
    table.add_row(
        "Training and sampling", f"{OPERATIONS(facts['flops'])}, {hours(facts['hours'])} h"
    )
    return table


def encoded(facts: dict[str, Any]) -> str:
    """Disk space of the encoded data: total and by kind."""
    sizes = facts["encoded_bytes"]
    if sizes is None:
        return "unknown: give --samples, or prepare the data (stage prepare)"
    kinds = ", ".join(f"{name} {BYTES(size)}" for name, size in sizes.items())
    return f"{facts['samples']:,} images, {BYTES(sum(sizes.values()))} ({kinds})"


def texts(facts: dict[str, Any]) -> str:
    """Disk space and compute of stored embeddings and of live text encoding."""
    options = facts["texts"]
    extra = f" and {OPERATIONS(options['flops_per_caption'])} a caption in every step"
    costs = {"stored": "", "live": extra}
    parts = [
        f"{name}: {'?' if size is None else BYTES(size)} in all{costs[name]}"
        for name, size in options["bytes_of_all"].items()
    ]
    return f"{options['chosen']} ({'; '.join(parts)})"


def hours(value: float | None) -> str:
    """Hours with three digits; a dash if no device was given."""
    return "-" if value is None else f"{value:,.3g}"
