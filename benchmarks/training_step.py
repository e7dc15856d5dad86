"""Images a second of adapter training: cached encodings against encoding in every step.

The peer works as the official IP-Adapter training loop does: each step encodes its pictures with
the VAE and the image encoder and its captions with the text encoder. Same models, same batches,
same adapter, same process; the two take turns, so that a drifting machine slows both alike.
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

from adapterbench.adapters.build import build_adapter
from adapterbench.backbone.load import load_part
from adapterbench.config import EncodeParams, load_params, load_train, load_variant
from adapterbench.data.encoded import EncodedSplit
from adapterbench.data.shards import Sample, read_split
from adapterbench.encode.shards import load_encoders
from adapterbench.fit import batch_indices, seeded
from adapterbench.record import peak_memory_mb
from adapterbench.train.adapter import drop_conditions
from adapterbench.train.loss import denoising_loss, draw_noise

DATA = Path("data")


def main(
    variant: Annotated[str, typer.Option(help="Row of `variants:`.")] = "ip_adapter",
    rounds: Annotated[int, typer.Option(help="Timed turns of each way.")] = 5,
    steps: Annotated[int, typer.Option(help="Optimiser steps a turn.")] = 4,
) -> None:
    """Compare the two ways of training; needs the outputs of `dvc repro encode`."""
    params = load_train(variant)
    data = EncodedSplit(DATA / "encoded", "train")
    samples = list(read_split(DATA / "shards", "train"))
    encoders = load_encoders(load_params(EncodeParams, "encode"), DATA / "backbone")
    unet = load_part(DATA / "backbone", "unet").to(memory_format=torch.channels_last)
    schedule = DDPMScheduler.from_pretrained(DATA / "backbone" / "scheduler")
    adapter = build_adapter(load_variant(variant), unet, data.embed_dim)
    adapter.attach(unet)
    optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=params.learning_rate)

    def cached(index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        batch = data.gather(index, torch.rand(len(index), generator=generator))
        return batch.latents, batch.image_embeds, batch.texts

    def encoded_each_time(
        index: Tensor, _generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch: list[Sample] = [samples[i] for i in index.tolist()]
        captions = [sample.captions[0] for sample in batch]
        return encoders.latents(batch), encoders.image_embeds(batch), encoders.texts(captions)

    def turn(inputs: Callable[..., tuple[Tensor, Tensor, Tensor]], first: int) -> float:
        began = time.perf_counter()
        for step in range(first, first + steps):
            generator = seeded(params.seed, step)
            index = batch_indices(len(data), params.batch_size, params.seed, step)
            latents, image_embeds, texts = inputs(index, generator)
            draw = torch.rand(len(index), generator=generator)
            conditions = drop_conditions(image_embeds, texts, data.empty, params, draw)
            noise, t = draw_noise(schedule, latents.shape, generator)
            denoising_loss(unet, schedule, latents, conditions, noise, t).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return steps * params.batch_size / (time.perf_counter() - began)

    ways = {"cached encodings (ours)": cached, "encoding in every step": encoded_each_time}
    for inputs in ways.values():
        turn(inputs, 0)  # warm-up
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, inputs in ways.items():
            speeds[name].append(turn(inputs, number * steps))
    show(speeds, variant, params.batch_size)


def show(speeds: dict[str, list[float]], variant: str, batch: int) -> None:
    """Print the medians, the spread and the ratio of pairs."""
    table = Table(title=f"Training {variant}, batch {batch}, {torch.get_num_threads()} threads")
    for column in ("way", "images/s (median)", "min", "max"):
        table.add_column(column)
    for name, values in speeds.items():
        middle = statistics.median(values)
        table.add_row(name, f"{middle:.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
    console = Console()
    console.print(table)
    ours, theirs = speeds.values()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    console.print(
        f"ratio, turn by turn (median): {ratio:.2f}; peak memory {peak_memory_mb():.0f} MiB"
    )


if __name__ == "__main__":
    typer.run(main)
