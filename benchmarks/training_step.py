"""Images a second and memory of adapter training: cached encodings against the official loop's way.

The peer works as IP-Adapter's `tutorial_train.py` does: a data loader opens each image, resizes
and normalises it twice (for the VAE, for the image encoder) and tokenises its caption; the step
runs the three frozen encoders; the UNet stays in fp32 and in torch's default memory format. It
reads its files from memory, where the official loop reads the disk. Same networks, batch, adapter
and optimiser. Each way has a process of its own, so that its peak memory is its own.

`--size sd15` takes networks of Stable Diffusion 1.5's size with random weights over random data
(15 GiB of memory for both); `small` takes what `dvc repro encode` leaves.
"""

import io
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from open_clip import create_model_and_transforms, get_tokenizer
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2  # type: ignore[import-untyped]
from transformers import CLIPTextConfig, CLIPTextModel
from turns import compare

from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.variant import load_variant
from adapterbench.cli.architecture import find
from adapterbench.core.config import EncodeParams, TrainParams, load_params, load_train
from adapterbench.core.environment import peak_memory_mb
from adapterbench.encoding.encoders import load_encoders
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.shards import read_split
from adapterbench.frozen.conditions import Texts, unet_inputs
from adapterbench.frozen.load import load_part
from adapterbench.runs.memory import keep_freed_memory
from adapterbench.training.adapter import drop_conditions
from adapterbench.training.batches import LocalBatch, LocalBatches
from adapterbench.training.loss import denoising_loss, draw_noise

GEMM = 2048
"""Side of the matrices by whose product the machine's peak is measured."""

Loss = Callable[[int], Tensor]
"""Step number -> loss of a batch, with its gradients to be taken."""


class Size(StrEnum):
    """Which networks are trained over."""

    SMALL = "small"
    SD15 = "sd15"


class Precision(StrEnum):
    """What the forward pass computes in."""

    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True)
class Case:
    """What both ways do."""

    size: Size
    precision: Precision
    variant: str
    batch: int
    steps: int
    threads: int
    data: Path
    device: str

    @property
    def params(self) -> TrainParams:
        """The training of the variant, with this batch."""
        return load_train(self.variant).model_copy(update={"batch_size": self.batch})

    @property
    def dtype(self) -> torch.dtype:
        """Of the forward pass."""
        return torch.bfloat16 if self.precision is Precision.BF16 else torch.float32


def main(
    size: Annotated[Size, typer.Option(help="Networks.")] = Size.SMALL,
    precision: Annotated[Precision, typer.Option(help="Of the forward pass.")] = Precision.FP32,
    variant: Annotated[str, typer.Option(help="Row of `variants:`.")] = "ip_adapter",
    batch: Annotated[
        int | None, typer.Option(help="Samples a step (default: params.yaml).")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Timed turns of each way.")] = 5,
    steps: Annotated[int, typer.Option(help="Optimiser steps a turn.")] = 4,
    data: Annotated[Path, typer.Option(help="Folder of backbone, shards, encoded.")] = Path("data"),
    device: Annotated[str, typer.Option(help="Where both train: cpu or cuda.")] = "cpu",
) -> None:
    """Compare the two ways of training."""
    threads = torch.get_num_threads()
    batch = batch or load_train(variant).batch_size
    case = Case(size, precision, variant, batch, steps, threads, data, device)
    ways = {
        "cached encodings (ours)": Way(cached, case),
        "official loop's way": Way(official, case),
    }
    where = f"{threads} threads" if device == "cpu" else torch.cuda.get_device_name()
    title = f"Training {variant}, {size}, batch {batch}, {precision}, {where}"
    compare(title, "images/s", {name: way.turn for name, way in ways.items()}, rounds)
    memory = {name: way.end() for name, way in ways.items()}
    ours, theirs = memory.values()
    print = Console(width=120).print
    print(", ".join(f"{name}: {mb:,.0f} MiB at the most" for name, mb in memory.items()))
    print(f"memory, ours to theirs: {ours / theirs:.2f}")
    shares = next(iter(ways.values())).shares[1:]
    print(f"share of the GEMM peak, ours: {statistics.median(shares):.0%} (median of the turns)")


class Way:
    """A process that trains in one way, a turn at a time."""

    def __init__(self, build: Callable[[Case], tuple[Loss, Any]], case: Case) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, build, case), daemon=True)
        self.process.start()
        theirs.close()
        self.shares: list[float] = []
        """Of the GEMM peak, in each turn."""

    def turn(self, number: int) -> float:
        """Train for some steps; images a second."""
        self.connection.send(number)
        speed, share = self.connection.recv()
        self.shares.append(share)
        return float(speed)

    def end(self) -> float:
        """End the process; its peak memory, MiB."""
        self.connection.send(None)
        return float(self.connection.recv())


def serve(asked: Connection, build: Callable[[Case], tuple[Loss, Any]], case: Case) -> None:
    """In the process of a `Way`: do as it asks."""
    keep_freed_memory()  # as every stage does
    torch.set_flush_denormal(True)  # as `fit` does
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    loss, adapter = build(case)
    weights = adapter.trainable_parameters()
    optimizer = torch.optim.AdamW(weights, lr=case.params.learning_rate)

    def step(number: int) -> None:
        with torch.autocast(case.device, case.dtype, enabled=case.precision is Precision.BF16):
            value = loss(number)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with FlopCounterMode(display=False) as flops:
        step(0)
    a = torch.randn(GEMM, GEMM, device=case.device, dtype=case.dtype)
    while (number := asked.recv()) is not None:
        began = time.perf_counter()
        for at in range(case.steps):
            step(number * case.steps + at)
        wait(case.device)
        seconds = time.perf_counter() - began
        reached = flops.get_total_flops() * case.steps / seconds
        asked.send((case.steps * case.batch / seconds, reached / peak_flops(a)))
    on_gpu = case.device == "cuda"
    asked.send(torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory_mb())


def wait(device: str) -> None:
    """Wait for what a GPU still computes."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_flops(a: Tensor) -> float:
    """Operations a second of the best of some products of large matrices."""
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        wait(a.device.type)
        best = max(best, 2 * GEMM**3 / (time.perf_counter() - began))
    return best


def cached(case: Case) -> tuple[Loss, Any]:
    """Ours: what stage `train` does in a step."""
    schedule = noise_schedule(case)
    draw: Callable[[int], LocalBatch]
    if case.size is Size.SMALL:
        data = EncodedSplit(case.data / "encoded", "train")
        width, no_text = data.embed_dim, data.empty
        draw = LocalBatches(data, schedule, case.params, slice(0, case.batch)).draw
    else:
        width, no_text, draw = 512, torch.randn(77, 768), random_shares(case)
    empty = Texts(no_text[None].to(case.device))
    unconditional = torch.zeros(width, device=case.device)
    frozen = unet(case).to(memory_format=torch.channels_last)
    adapter = build_adapter(load_variant(case.variant), frozen, width).to(case.device)
    frozen.to(case.dtype)
    adapter.attach(frozen)

    def loss(step: int) -> Tensor:
        part = draw(step).to(torch.device(case.device))
        given, without = (part.image_embeds, Texts(part.texts)), (unconditional, empty)
        embeds, texts = drop_conditions(*given, *without, case.params, part.drop)
        conditions = unet_inputs(texts, part.latents, embeds[:, None])
        return denoising_loss(frozen, schedule, part.latents, conditions, part.noise, part.t)

    return loss, adapter


def random_shares(case: Case) -> Callable[[int], LocalBatch]:
    """Random shares at the size of SD 1.5, from the memory of the device."""

    def draw(_step: int) -> LocalBatch:
        n, latents = case.batch, (case.batch, 4, 64, 64)
        t = torch.randint(0, 1000, (n,), device=case.device)
        shapes = (latents, (n, 512), (n, 77, 768), latents)
        z, image, text, noise = (torch.randn(shape, device=case.device) for shape in shapes)
        return LocalBatch(z, image, text, noise, t, torch.rand(n, device=case.device))

    return draw


def official(case: Case) -> tuple[Loss, Any]:
    """The peer: every frozen network runs in every step."""
    networks = small_networks(case) if case.size is Size.SMALL else random_networks()
    for network in (networks.vae, networks.text_encoder, networks.clip):
        network.requires_grad_(False).to(case.device, case.dtype)
    batches = iter(DataLoader(CaptionedImages(networks), case.batch, shuffle=True))
    no_text = networks.tokenize([""]).to(case.device)
    empty = Texts(networks.text_encoder(no_text).last_hidden_state.float())
    frozen, schedule = unet(case), noise_schedule(case)
    adapter = build_adapter(load_variant(case.variant), frozen, networks.width).to(case.device)
    adapter.attach(frozen)

    def loss(_step: int) -> Tensor:
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(DataLoader(CaptionedImages(networks), case.batch, shuffle=True))
            batch = next(batches)
        batch = {name: values.to(case.device) for name, values in batch.items()}
        with torch.no_grad():
            latents = networks.vae.encode(batch["pixels"].to(case.dtype)).latent_dist.sample()
            embeds = networks.clip.encode_image(batch["clip_pixels"].to(case.dtype))
            texts = Texts(networks.text_encoder(batch["ids"]).last_hidden_state.float())
        latents = latents.float() * networks.vae.config.scaling_factor
        drop = torch.rand(len(latents), device=case.device)
        given, without = (embeds.float(), texts), (torch.zeros_like(embeds[0]), empty)
        embeds, texts = drop_conditions(*given, *without, case.params, drop)
        conditions = unet_inputs(texts, latents, embeds[:, None])
        noise, t = draw_noise(schedule, latents.shape, torch.default_generator)
        return denoising_loss(frozen, schedule, latents, conditions, noise, t)

    return loss, adapter


@dataclass(frozen=True)
class Networks:
    """The frozen encoders, and what they read."""

    vae: Any
    text_encoder: Any
    clip: Any
    preprocess: Callable[[Image.Image], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    """Texts -> token ids `(N, L)` of the text encoder."""
    width: int
    """Of an image embedding."""
    images: list[Image.Image]
    captions: list[str]


def small_networks(case: Case) -> Networks:
    """What stage `encode` reads and runs."""
    encoders = load_encoders(load_params(EncodeParams, "encode"), case.data / "backbone")
    samples = list(read_split(case.data / "shards", "train"))
    [tokenizer] = encoders.text.tokenizers

    def tokenize(texts: list[str]) -> Tensor:
        length = tokenizer.model_max_length
        padded = {"padding": "max_length", "truncation": True, "max_length": length}
        ids: Tensor = tokenizer(texts, return_tensors="pt", **padded).input_ids
        return ids

    return Networks(
        vae=encoders.vae,
        text_encoder=encoders.text.models[0],
        clip=encoders.clip.model,
        preprocess=encoders.clip.preprocess,
        tokenize=tokenize,
        width=encoders.clip.embed_dim,
        images=[sample.image for sample in samples],
        captions=[sample.captions[0] for sample in samples],
    )


def random_networks() -> Networks:
    """Those of Stable Diffusion 1.5 and ViT-B-32, untrained, and images of noise."""
    architecture = find("sd15", None)
    clip, _, preprocess = create_model_and_transforms("ViT-B-32")
    noise = torch.randint(0, 256, (8, 512, 512, 3), dtype=torch.uint8)
    return Networks(
        vae=AutoencoderKL.from_config(architecture.config("vae")),
        text_encoder=CLIPTextModel(CLIPTextConfig(**architecture.config("text_encoder"))),
        clip=clip,
        preprocess=preprocess,
        tokenize=get_tokenizer("ViT-B-32"),
        width=512,
        images=[Image.fromarray(image.numpy()) for image in noise],
        captions=["a photo of nothing"] * len(noise),
    )


def unet(case: Case) -> Any:
    """The frozen UNet, fp32."""
    if case.size is Size.SMALL:
        frozen = load_part(case.data / "backbone", "unet")
    else:
        frozen = UNet2DConditionModel.from_config(find("sd15", None).config("unet"))
    return frozen.requires_grad_(False).to(case.device)


def noise_schedule(case: Case) -> Any:
    """The noise schedule of training."""
    if case.size is Size.SMALL:
        return DDPMScheduler.from_config(load_part(case.data / "backbone", "scheduler").config)
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


class CaptionedImages(Dataset[dict[str, Tensor]]):
    """PNGs with a caption each, made ready for the three encoders when they are asked for."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.files = [png(image) for image in networks.images]
        size = networks.images[0].size[0]
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
        image = Image.open(io.BytesIO(self.files[number])).convert("RGB")
        return {
            "pixels": self.transform(image),
            "clip_pixels": self.networks.preprocess(image),
            "ids": self.networks.tokenize([self.networks.captions[number]])[0],
        }


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    typer.run(main)
