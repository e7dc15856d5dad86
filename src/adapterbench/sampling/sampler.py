"""Pictures of the chosen items by one method, as a tar for each protocol."""

import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from jaxtyping import Float
from more_itertools import chunked
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adapterbench.adapters.core.storage import (
    CONFIG,
    WEIGHTS,
    load_adapter,
    load_config,
    load_variant,
)
from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import SampleParams
from adapterbench.core.errors import InputError, UserError
from adapterbench.core.files import MANIFEST, publish
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.generated import PROTOCOLS, Generated, samples_tar, write_images
from adapterbench.formats.image import to_png
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.frozen.precision import autocast
from adapterbench.frozen.texts import as_embeddings
from adapterbench.runs.processes import processes, share
from adapterbench.runs.resume import alone, resume_path
from adapterbench.sampling.items import choose_items, noise
from adapterbench.sampling.prompts import OwnPrompts, Prompts, check_row, encoded_prompts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A picture to make: number of its item in the split, key, and which of the item's K."""

    number: int
    key: str
    k: int

    @property
    def name(self) -> str:
        """Name of its file while the stage works; not by key, whose case some disks ignore."""
        return f"{self.number}.{self.k}"


class PairedPipeline(StableDiffusionPipeline):
    """Takes an image prompt for each picture, where the stock pipeline gives all the same."""

    def prepare_ip_adapter_image_embeds(
        self, _image: None, embeds: list[Tensor], *_: Any
    ) -> list[Tensor]:
        """The embeddings as they are, unconditional half first: they have the batch's size."""
        return embeds


class Sampler:
    """A frozen pipeline, with an adapter or without."""

    def __init__(
        self,
        params: SampleParams,
        encoded: Path,
        backbone: Path,
        adapter: Path | None,
        device: torch.device | str = "cpu",
        shards: Path | None = None,
        variant: Variant | None = None,
    ) -> None:
        """Load everything.

        Args:
            adapter: folder of a trained adapter; None samples the base model alone.
            device: where the networks go.
            shards: folder of stage prepare, for an adapter with an image encoder of its own.
            variant: row of the adapter; None: what it says itself, read as stage encode does.

        Raises:
            UserError: something is missing or does not fit.
        """
        self.params = params
        self.device = torch.device(device)
        self.data = EncodedSplit(encoded, "validation")
        self.unet = load_part(backbone, "unet").to(device, memory_format=torch.channels_last)
        if adapter:
            check_row(adapter, variant or load_variant(adapter))
        self.adapter = load_adapter(adapter, self.unet) if adapter else None
        if adapter and self.adapter:
            self.adapter.requires_grad_(False)
            self.adapter.attach(self.unet)
            self.adapter.scale = params.scale
            self.prompts = self.prompts_of(variant or load_variant(adapter), shards)
        scheduler = solver(backbone)
        if params.steps > (most := scheduler.config.num_train_timesteps):
            raise UserError(
                f"sample.steps = {params.steps:,}, but the noise schedule of {backbone} has "
                f"{most:,} timesteps: lower it"
            )
        self.pipeline = PairedPipeline(
            vae=load_part(backbone, "vae"),
            text_encoder=load_part(backbone, "text_encoder"),
            tokenizer=load_part(backbone, "tokenizer"),
            unet=self.unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.shape = tuple(self.data.row(0)[0].shape)

    def prompts_of(self, variant: Variant, shards: Path | None) -> Prompts:
        """Where the image prompts of an adapter come from."""
        if variant.image_encoder is None:
            return encoded_prompts(self.data)
        own = OwnPrompts(self.data, variant, shards, self.params.batch_size)
        own([picture.number for picture in self.pictures()])  # in one pass over the shards
        return own

    def pictures(self) -> list[Picture]:
        """All pictures of a protocol, item by item."""
        items = choose_items(self.data.samples, self.params.items, self.params.seed)
        return [
            Picture(number, self.data.samples[number]["key"], k)
            for number in items
            for k in range(self.params.images_per_item)
        ]

    def make(self, pictures: list[Picture], with_text: bool) -> list[Image.Image]:
        """Sample some pictures together; each depends on its own noise alone."""
        return self.draw(pictures, self.captions(pictures) if with_text else None)

    def captions(self, pictures: list[Picture]) -> Float[Tensor, "batch text dim"]:
        """Embedded captions of the pictures' items `(N, L, D)`."""
        texts = torch.stack([self.data.row(picture.number)[2] for picture in pictures])
        return as_embeddings(texts, self.pipeline.text_encoder)

    @cached_property
    def empty(self) -> Float[Tensor, "text dim"]:
        """The embedded empty caption `(L, D)`."""
        return as_embeddings(self.data.empty[None], self.pipeline.text_encoder)[0]

    @torch.no_grad()
    def draw(
        self, pictures: list[Picture], text: Float[Tensor, "batch text dim"] | None
    ) -> list[Image.Image]:
        """Sample pictures of their items' image prompts and of texts `(N, L, D)`, or none.

        The noise is drawn on the CPU, so it is the same on every device.
        """
        empty = self.empty.expand(len(pictures), -1, -1)
        latents = [noise(p.key, p.k, self.params.seed, self.shape) for p in pictures]
        prompts = self.image_prompts(pictures)
        with autocast(self.device, self.params.mixed_precision):
            images: list[Image.Image] = self.pipeline(
                prompt_embeds=empty if text is None else text,
                negative_prompt_embeds=empty,
                ip_adapter_image_embeds=prompts,
                latents=torch.stack(latents),
                num_inference_steps=self.params.steps,
                guidance_scale=self.params.guidance_scale,
            ).images
        return images

    def image_prompts(
        self, pictures: list[Picture]
    ) -> list[Float[Tensor, "batch 1 *features"]] | None:
        """What the pipeline takes: under guidance the unconditional half, then the prompts."""
        if self.adapter is None:
            return None
        found, unconditional = self.prompts([picture.number for picture in pictures])
        half = [unconditional.expand_as(found)] if self.params.guidance_scale > 1 else []
        return [torch.cat([*half, found])[:, None].to(self.device)]


def solver(backbone: Path) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ (Lu et al. 2022), second order, on the backbone's own noise schedule."""
    return DPMSolverMultistepScheduler.from_config(
        load_part(backbone, "scheduler").config, algorithm_type="dpmsolver++", solver_order=2
    )


def sample(
    params: SampleParams,
    encoded: Path,
    backbone: Path,
    adapter: Path | None,
    protocols: list[str],
    out: Path,
    shards: Path | None = None,
    variant: Variant | None = None,
) -> int:
    """Write `out/<protocol>.tar` with members `<key>.<k>.png`; return the number of pictures.

    Processes that `accelerate launch` starts share the pictures. A killed run keeps those it has
    made and goes on with the others.

    Raises:
        UserError: an unknown protocol, or an input that is missing or does not fit.
    """
    if unknown := [protocol for protocol in protocols if protocol not in PROTOCOLS]:
        raise UserError(f"unknown protocol {unknown[0]!r} (there are {', '.join(PROTOCOLS)})")
    state = processes()
    # the batch size changes no picture, so a resumed run may have another
    same = params.model_copy(update={"batch_size": 1})
    identity = fingerprint(backbone)
    facts = {"sample": same, "backbone": identity}
    own = [adapter / WEIGHTS, adapter / CONFIG] if adapter else []
    made = resume_path(f"sample-{out.name}", facts, encoded / MANIFEST, *own)
    if adapter:
        check_backbone(adapter, identity)
    sampler = Sampler(params, encoded, backbone, adapter, state.device, shards, variant)
    pictures = sampler.pictures()
    # cut into batches before they are shared: a picture is rounded as its batch is
    mine = share(list(chunked(pictures, params.batch_size)), state)
    quiet = not state.is_main_process
    with alone(made, leads=state.is_main_process):
        for protocol in protocols:
            folder = made / protocol
            folder.mkdir(parents=True, exist_ok=True)
            for batch in tqdm(mine, f"{out.name} {protocol}", unit="batch", disable=quiet):
                make_missing(sampler, batch, PROTOCOLS[protocol].with_text, folder)
        state.wait_for_everyone()
        if state.is_main_process:
            with publish(out) as beside:
                beside.mkdir()
                for protocol in protocols:
                    pack(made / protocol, pictures, samples_tar(beside, protocol))
            shutil.rmtree(made)
        state.wait_for_everyone()
    return len(pictures) * len(protocols)


def check_backbone(adapter: Path, identity: str) -> None:
    """Refuse an adapter that was trained over another backbone than the one with this fingerprint.

    Raises:
        UserError: it was; one that does not know its backbone, as those from elsewhere, may pass.
    """
    if load_config(adapter).backbone.get("digest", identity) != identity:
        raise InputError(
            f"{adapter} was trained over another backbone, or this one has changed since", adapter
        )


def make_missing(sampler: Sampler, batch: list[Picture], with_text: bool, folder: Path) -> None:
    """Write those pictures of a batch that `folder` does not hold yet."""
    todo = [picture for picture in batch if not (folder / f"{picture.name}.png").exists()]
    images = sampler.make(todo, with_text) if todo else []
    for picture, image in zip(todo, images, strict=True):
        with publish(folder / f"{picture.name}.png") as beside:
            beside.write_bytes(to_png(image))


def pack(folder: Path, pictures: list[Picture], path: Path) -> None:
    """Write the pictures that `make_missing` left as one tar."""
    files = ((picture, folder / f"{picture.name}.png") for picture in pictures)
    write_images(path, (Generated(p.key, p.k, file.read_bytes()) for p, file in files))
