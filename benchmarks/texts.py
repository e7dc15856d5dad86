"""Images a second of adapter training: captions embedded beforehand against in every step.

What `encode.texts: stored` and `live` cost. The same adapter, batches and process; the two take
turns, so that a drifting machine slows both alike.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import DDPMScheduler
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.config import load_train
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.conditions import Texts, unet_inputs
from adapterbench.frozen.load import load_part
from adapterbench.frozen.texts import as_texts, load_text_encoders
from adapterbench.runs.memory import keep_freed_memory
from adapterbench.training.adapter import drop_conditions
from adapterbench.training.loop import batch_indices, seeded
from adapterbench.training.loss import denoising_loss, draw_noise

DATA = Path("data")
ROW = {"projection": "linear", "attention": "decoupled", "tokens": 4}


def main(
    rounds: Annotated[int, typer.Option(help="Timed turns of each way.")] = 5,
    steps: Annotated[int, typer.Option(help="Optimiser steps a turn.")] = 4,
) -> None:
    """Compare the two; needs the outputs of `dvc repro encode`, with `encode.texts: stored`."""
    keep_freed_memory()  # as every stage does
    torch.set_flush_denormal(True)  # as `fit` does
    step = training()
    stored, ids = captions()
    encoders = load_text_encoders(DATA / "backbone")
    ways: dict[str, Callable[[Tensor], Texts]] = {
        "stored": lambda index: as_texts(stored[index], None),
        "live": lambda index: as_texts(ids[index], encoders),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first is the warm-up
        for name, texts in ways.items():
            began = time.perf_counter()
            seen = sum(step(number * steps + n, texts) for n in range(steps))
            speeds[name].append(seen / (time.perf_counter() - began))
    show({name: values[1:] for name, values in speeds.items()})


def captions() -> tuple[Tensor, Tensor]:
    """The first phrasing of each training sample: embeddings `(N, L, D)` and token ids `(N, L)`."""
    data = EncodedSplit(DATA / "encoded", "train")
    numbers = torch.arange(len(data))
    stored = data.gather(numbers, torch.zeros(len(data))).texts
    said = [sample["captions"][0] for sample in data.samples]
    return stored, load_text_encoders(DATA / "backbone").token_ids(said)


def training() -> Callable[[int, Callable[[Tensor], Texts]], int]:
    """A step of a training: its number, and what gives the texts of samples -> samples seen."""
    params, data = load_train("ip_adapter"), EncodedSplit(DATA / "encoded", "train")
    unet = load_part(DATA / "backbone", "unet").to(memory_format=torch.channels_last)
    schedule = DDPMScheduler.from_pretrained(DATA / "backbone" / "scheduler")
    adapter = build_adapter(parse_variant(ROW), unet, data.embed_dim)
    adapter.attach(unet)
    optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=params.learning_rate)

    empty = as_texts(data.empty[None], None)

    def step(number: int, texts: Callable[[Tensor], Texts]) -> int:
        generator = seeded(params.seed, number)
        index = batch_indices(len(data), params.batch_size, params.seed, number)
        batch = data.gather(index, torch.zeros(len(index)))
        draw = torch.rand(len(index), generator=generator)
        said = texts(index)
        without = data.unconditional, empty
        embeds, said = drop_conditions(batch.image_embeds, said, *without, params, draw)
        conditions = unet_inputs(said, batch.latents, embeds[:, None])
        noise, t = draw_noise(schedule, batch.latents.shape, generator)
        denoising_loss(unet, schedule, batch.latents, conditions, noise, t).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return len(index)

    return step


def show(speeds: dict[str, list[float]]) -> None:
    """Print the speeds and their ratio."""
    table = Table(title=f"Training ip_adapter, {torch.get_num_threads()} threads")
    for column in ("texts", "images/s (median)", "min", "max"):
        table.add_column(column)
    for name, values in speeds.items():
        numbers = (statistics.median(values), min(values), max(values))
        table.add_row(name, *(f"{number:.1f}" for number in numbers))
    console = Console()
    console.print(table)
    pairs = zip(speeds["live"], speeds["stored"], strict=True)
    ratio = statistics.median(live / stored for live, stored in pairs)
    console.print(f"live to stored, turn by turn (median): {ratio:.2f}")


if __name__ == "__main__":
    typer.run(main)
