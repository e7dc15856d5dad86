"""Images a second of the way from tars of JPEGs to encoded shards, and core-hours for CC3M.

Synthetic JPEGs of 512 x 512 pixels, as large as photographs, in tars as the hub has CC3M. Each step
runs as its stage does; `decode and crop` is what the workers of `encode` do, alone.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import webdataset as wds
from more_itertools import chunked, consume
from PIL import Image
from rich.console import Console
from rich.table import Table

from adapterbench.core.config import DataParams, EncodeParams, load_params, parse
from adapterbench.data.prepare import prepare
from adapterbench.data.sample import SPLITS
from adapterbench.data.sources import local
from adapterbench.encoding.encoders import load_encoders
from adapterbench.encoding.reading import read_batches
from adapterbench.encoding.shards import encode
from adapterbench.formats.shards import find_shards
from adapterbench.runs.workers import cores

BACKBONE = Path("data/backbone")
SIDE, SMALL = 512, 64
"""Pixels of the JPEGs, and of what the small networks take."""
PER_TAR, CC3M = 1000, 2_919_397


@dataclass(frozen=True)
class Step:
    """What is timed."""

    name: str
    seconds: float
    cores: float
    """Those that it may use."""


def main(
    images: Annotated[int, typer.Option(help="JPEGs to make.", min=20)] = 5000,
) -> None:
    """Time every step on this machine; needs the output of `dvc repro backbone`."""
    params, backbone = load_params(EncodeParams, "encode"), BACKBONE.absolute()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        kilobytes = write_tars(Path("tars"), images)
        show(list(steps(params, backbone, images)), images, kilobytes)


def steps(params: EncodeParams, backbone: Path, images: int) -> Iterator[Step]:
    """Run the steps one after the other."""
    raw, shards, small = Path("raw"), Path("shards"), Path("small")
    data = data_params(images, SIDE)
    fetch = parse(local.Params, data.fetch, "data.fetch")
    yield timed("fetch: copy the tars", 1, lambda: local.fetch(fetch, raw))
    yield timed("prepare: check, split, list", 1, lambda: prepare(data, raw, shards))
    encoders = load_encoders(params, backbone)
    listed = [shard for split in SPLITS for shard in find_shards(shards, split)]
    batches = read_batches(listed, params.batch_size, encoders.clip.preprocess, params.fit)
    yield timed(f"encode: decode and crop to {SIDE} px", cores(), lambda: consume(batches))

    def networks() -> None:
        images_of_a_batch = torch.zeros(params.batch_size, 3, SMALL, SMALL, dtype=torch.uint8)
        clip_pixels = encoders.clip.preprocess(Image.new("RGB", (SMALL, SMALL)))
        for part in chunked(range(images), params.batch_size):
            encoders.latents(images_of_a_batch[: len(part)])
            encoders.clip.pixel_embeds(clip_pixels.expand(len(part), -1, -1, -1))

    threads = torch.get_num_threads()
    yield timed(f"encode: the small networks at {SMALL} px", threads, networks)
    prepare(data_params(images, SMALL), raw, small)
    out = Path("encoded")
    whole = partial(encode, params, small, backbone, out)
    yield timed(f"encode, whole, at {SMALL} px", cores(), whole)


def data_params(images: int, resolution: int) -> DataParams:
    """The section `data`, for tars of one's own."""
    values = {
        "source": "local",
        "fetch": {"path": "tars/*.tar"},
        "resolution": resolution,
        "split": "concepts",
        "held_out": None,
        "validation_concepts": max(1, images // 200),
        "images_per_concept": None,
        "samples_per_shard": 5000,
        "seed": 0,
    }
    return parse(DataParams, values, "data")


def timed(name: str, used: float, call: Callable[[], Any]) -> Step:
    """Time a call."""
    began = time.perf_counter()
    call()
    return Step(name, time.perf_counter() - began, used)


def write_tars(folder: Path, count: int) -> float:
    """Write the JPEGs; kB of one."""
    folder.mkdir()
    total = 0
    for part in chunked(range(count), PER_TAR):
        with wds.TarWriter(str(folder / f"{part[0] // PER_TAR:05d}.tar")) as tar:
            for number in part:
                jpeg = photograph(number)
                total += len(jpeg)
                tar.write({"__key__": f"{number:09d}", "jpg": jpeg, "txt": f"image {number}"})
    return total / count / 1000


def photograph(number: int) -> bytes:
    """A JPEG with detail at every scale, about as many bytes as a photograph's."""
    generator = np.random.default_rng(number)
    image = np.zeros((SIDE, SIDE, 3))
    for side in (4, 16, 64, 256):
        noise = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        image += np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    file = BytesIO()
    Image.fromarray((image / 4).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def show(measured: list[Step], images: int, kilobytes: float) -> None:
    """Print a line a step."""
    title = f"{images:,} JPEGs of {SIDE} px, {kilobytes:.0f} kB each"
    table = Table(title=title)
    for column in ("step", "cores", "images/s", "images/s and core", "core-hours for CC3M"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step in measured:
        speed = images / step.seconds
        hours = CC3M / speed * step.cores / 3600
        table.add_row(
            step.name,
            f"{step.cores:g}",
            f"{speed:,.0f}",
            f"{speed / step.cores:,.0f}",
            f"{hours:.1f}",
        )
    console = Console()
    console.print(table)
    load = os.getloadavg()[0]
    console.print(f"load of the machine at the end: {load:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    typer.run(main)
