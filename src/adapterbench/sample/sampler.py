"""Pictures of the chosen items by one method, as a tar for each protocol."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import webdataset as wds
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from more_itertools import chunked
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adapterbench.adapters.storage import WEIGHTS, load_adapter
from adapterbench.backbone.load import fingerprint, load_part
from adapterbench.config import SampleParams
from adapterbench.data.encoded import EncodedSplit
from adapterbench.files import MANIFEST, publish
from adapterbench.resume import resume_path
from adapterbench.sample.items import choose_items, noise

log = logging.getLogger(__name__)

PROTOCOLS = {"image": False, "image_text": True}
"""Name of a protocol -> whether the caption is given; the image prompt is, by an adapter."""


@dataclass(frozen=True)
class Picture:
    """A picture to make: number of its item in the split, key, and which of the item's K."""

    number: int
    key: str
    k: int

    @property
    def name(self) -> str:
        """Name in the tar, without `.png`."""
        return f"{self.key}.{self.k}"


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
        self, params: SampleParams, encoded: Path, backbone: Path, adapter: Path | None
    ) -> None:
        """Load everything.

        Args:
            adapter: folder of a trained adapter; None samples the base model alone.

        Raises:
            UserError: something is missing or does not fit.
        """
        self.params = params
        self.data = EncodedSplit(encoded, "validation")
        self.unet = load_part(backbone, "unet").to(memory_format=torch.channels_last)
        self.adapter = load_adapter(adapter, self.unet) if adapter else None
        if self.adapter:
            self.adapter.requires_grad_(False)
            self.adapter.attach(self.unet)
            self.adapter.scale = params.scale
        self.pipeline = PairedPipeline(
            vae=load_part(backbone, "vae"),
            text_encoder=load_part(backbone, "text_encoder"),
            tokenizer=load_part(backbone, "tokenizer"),
            unet=self.unet,
            scheduler=solver(backbone),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.shape = tuple(self.data.row(0)[0].shape)

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

    def captions(self, pictures: list[Picture]) -> Tensor:
        """Embedded captions of the pictures' items `(N, L, D)`."""
        return torch.stack([self.data.row(picture.number)[2] for picture in pictures]).float()

    @torch.no_grad()
    def draw(self, pictures: list[Picture], text: Tensor | None) -> list[Image.Image]:
        """Sample pictures of their items' image prompts and of texts `(N, L, D)`, or none."""
        rows = [self.data.row(picture.number) for picture in pictures]
        empty = self.data.empty.expand(len(pictures), -1, -1)
        latents = [noise(p.key, p.k, self.params.seed, self.shape) for p in pictures]
        images: list[Image.Image] = self.pipeline(
            prompt_embeds=empty if text is None else text,
            negative_prompt_embeds=empty,
            ip_adapter_image_embeds=self.image_prompts([row[1] for row in rows]),
            latents=torch.stack(latents),
            num_inference_steps=self.params.steps,
            guidance_scale=self.params.guidance_scale,
        ).images
        return images

    def image_prompts(self, embeds: list[Tensor]) -> list[Tensor] | None:
        """What the pipeline takes: zeros for the unconditional half, then the prompts."""
        if self.adapter is None:
            return None
        prompts = torch.stack(embeds).float()[:, None]
        guided = self.params.guidance_scale > 1
        return [torch.cat([torch.zeros_like(prompts), prompts]) if guided else prompts]


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
) -> int:
    """Write `out/<protocol>.tar` with members `<key>.<k>.png`; return the number of pictures.

    A killed run keeps the pictures it has made and goes on with the others.
    """
    # the batch size changes no picture, so a resumed run may have another
    same = params.model_copy(update={"batch_size": 1})
    facts = {"sample": same, "backbone": fingerprint(backbone)}
    inputs = [encoded / MANIFEST, *([adapter / WEIGHTS] if adapter else [])]
    made = resume_path(f"sample-{out.name}", facts, *inputs)
    sampler = Sampler(params, encoded, backbone, adapter)
    pictures = sampler.pictures()
    for protocol in protocols:
        folder = made / protocol
        folder.mkdir(parents=True, exist_ok=True)
        todo = [p for p in pictures if not (folder / f"{p.name}.png").exists()]
        with tqdm(total=len(todo), desc=f"{out.name} {protocol}", unit="img") as bar:
            for batch in chunked(todo, params.batch_size):
                images = sampler.make(batch, PROTOCOLS[protocol])
                for picture, image in zip(batch, images, strict=True):
                    with publish(folder / f"{picture.name}.png") as beside:
                        image.save(beside, "PNG")
                bar.update(len(batch))
    with publish(out) as beside:
        beside.mkdir()
        for protocol in protocols:
            pack(made / protocol, pictures, beside / f"{protocol}.tar")
    shutil.rmtree(made)
    return len(pictures) * len(protocols)


def pack(folder: Path, pictures: list[Picture], path: Path) -> None:
    """Write the pictures as one tar, the same bytes for the same pictures."""
    with wds.TarWriter(str(path), mtime=0, encoder=False) as tar:
        for picture in pictures:
            data = (folder / f"{picture.name}.png").read_bytes()
            tar.write({"__key__": picture.key, f"{picture.k}.png": data})
