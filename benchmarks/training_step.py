"""Images a second of adapter training: cached encodings against the official loop's way.

The peer works as IP-Adapter's `tutorial_train.py` does: a data loader opens each picture, resizes
and normalises it twice (for the VAE, for the image encoder) and tokenises its caption; the step
runs the three frozen encoders; the UNet keeps torch's default memory format. It reads its PNGs
from memory, where the official loop reads the disk. Same networks, batch size, adapter and
optimiser, same process; the two take turns, so that a drifting machine slows both alike.
"""

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import DDPMScheduler
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2  # type: ignore[import-untyped]

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.variant import load_variant
from adapterbench.core.config import EncodeParams, TrainParams, load_params, load_train
from adapterbench.core.environment import peak_memory_mb
from adapterbench.encoding.encoders import Encoders, load_encoders
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.shards import Sample, read_split
from adapterbench.frozen.load import load_part
from adapterbench.runs.memory import keep_freed_memory
from adapterbench.training.adapter import drop_conditions
from adapterbench.training.loop import batch_indices, seeded
from adapterbench.training.loss import denoising_loss, draw_noise

DATA = Path("data")

Step = Callable[[int], Tensor]
"""Step number -> loss of a batch, with its gradients to be taken."""


def main(
    variant: Annotated[str, typer.Option(help="Row of `variants:`.")] = "ip_adapter",
    rounds: Annotated[int, typer.Option(help="Timed turns of each way.")] = 5,
    steps: Annotated[int, typer.Option(help="Optimiser steps a turn.")] = 4,
) -> None:
    """Compare the two ways of training; needs the outputs of `dvc repro encode`."""
    keep_freed_memory()  # as every stage does
    torch.set_flush_denormal(True)  # as `fit` does
    params = load_train(variant)
    ways = {
        "cached encodings (ours)": cached(variant, params),
        "official loop's way": official(variant, params),
    }
    turns = {name: trainer(adapter, step, params, steps) for name, (adapter, step) in ways.items()}
    for turn in turns.values():
        turn(0)  # warm-up
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, turn in turns.items():
            speeds[name].append(turn(number * steps))
    show(speeds, variant, params.batch_size)


def trainer(
    adapter: Adapter, loss: Step, params: TrainParams, steps: int
) -> Callable[[int], float]:
    """A turn: train `steps` steps from a step number on; give images a second."""
    weights = adapter.trainable_parameters()
    optimizer = torch.optim.AdamW(weights, lr=params.learning_rate)

    def turn(first: int) -> float:
        began = time.perf_counter()
        for step in range(first, first + steps):
            loss(step).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return steps * params.batch_size / (time.perf_counter() - began)

    return turn


def cached(variant: str, params: TrainParams) -> tuple[Adapter, Step]:
    """Ours: what stage `train` does in a step."""
    data = EncodedSplit(DATA / "encoded", "train")
    unet, adapter, schedule = model(variant, data.embed_dim, torch.channels_last)

    def loss(step: int) -> Tensor:
        generator = seeded(params.seed, step)
        index = batch_indices(len(data), params.batch_size, params.seed, step)
        batch = data.gather(index, torch.rand(len(index), generator=generator))
        draw = torch.rand(len(index), generator=generator)
        conditions = drop_conditions(batch.image_embeds, batch.texts, data.empty, params, draw)
        noise, t = draw_noise(schedule, batch.latents.shape, generator)
        return denoising_loss(unet, schedule, batch.latents, conditions, noise, t)

    return adapter, loss


def official(variant: str, params: TrainParams) -> tuple[Adapter, Step]:
    """The peer: every frozen network runs in every step."""
    encoders = load_encoders(load_params(EncodeParams, "encode"), DATA / "backbone")
    pictures = Pictures(list(read_split(DATA / "shards", "train")), encoders)
    batches = iter(DataLoader(pictures, params.batch_size, shuffle=True))
    empty = encoders.texts([""])[0]
    unet, adapter, schedule = model(variant, encoders.clip.embed_dim, torch.contiguous_format)

    def loss(step: int) -> Tensor:
        batch = next(batches)
        with torch.no_grad():
            latents = encoders.vae.encode(batch["pixels"]).latent_dist.sample()
            image_embeds = encoders.clip.model.encode_image(batch["clip_pixels"])
            texts = encoders.text_encoder(batch["ids"]).last_hidden_state
        generator = seeded(params.seed, step)
        draw = torch.rand(len(texts), generator=generator)
        conditions = drop_conditions(image_embeds, texts, empty, params, draw)
        noise, t = draw_noise(schedule, latents.shape, generator)
        latents = latents * encoders.vae.config.scaling_factor
        return denoising_loss(unet, schedule, latents, conditions, noise, t)

    return adapter, loss


class Pictures(Dataset[dict[str, Tensor]]):
    """PNGs with a caption each, made ready for the three encoders when they are asked for."""

    def __init__(self, samples: list[Sample], encoders: Encoders) -> None:
        self.files = [png(sample.image) for sample in samples]
        self.captions = [sample.captions[0] for sample in samples]
        self.encoders = encoders
        size = samples[0].image.size[0]
        self.transform = v2.Compose(
            [
                v2.Resize(size),
                v2.CenterCrop(size),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        picture = Image.open(io.BytesIO(self.files[number])).convert("RGB")
        tokenizer = self.encoders.tokenizer
        tokens = tokenizer(
            self.captions[number],
            max_length=tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return {
            "pixels": self.transform(picture),
            "clip_pixels": self.encoders.clip.preprocess(picture),
            "ids": tokens.input_ids[0],
        }


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def model(variant: str, embed_dim: int, layout: torch.memory_format) -> tuple[Any, Adapter, Any]:
    """UNet with a new adapter, the adapter, and the schedule."""
    unet = load_part(DATA / "backbone", "unet").to(memory_format=layout)
    adapter = build_adapter(load_variant(variant), unet, embed_dim)
    adapter.attach(unet)
    return unet, adapter, DDPMScheduler.from_pretrained(DATA / "backbone" / "scheduler")


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
