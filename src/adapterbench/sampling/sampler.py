"""Generate the images of one method: one tar per protocol."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
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
from adapterbench.core.config import SampleParams, Section
from adapterbench.core.errors import InputError, UserError
from adapterbench.core.files import MANIFEST, publish
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.generated import PROTOCOLS, Generated, samples_tar, write_images
from adapterbench.formats.image import to_png
from adapterbench.frozen.conditions import Texts, image_size
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.frozen.precision import autocast
from adapterbench.frozen.texts import as_texts, load_text_encoders
from adapterbench.runs.processes import process_state, share
from adapterbench.runs.resume import exclusive_run, resume_path
from adapterbench.sampling.items import choose_items, noise
from adapterbench.sampling.prompts import OwnPrompts, Prompts, check_row, encoded_prompts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageId:
    """Identity of a generated image: index and key of its item, `k` among the item's K images."""

    number: int
    key: str
    k: int

    @property
    def name(self) -> str:
        """Stem of its temporary file; not the key, since some file systems ignore case."""
        return f"{self.number}.{self.k}"


Generate = Callable[[list[ImageId], dict[str, Any]], Any]
"""Images and the texts, steps and guidance of a pipeline -> the pipeline's output."""


@dataclass(frozen=True)
class TrainingFree:
    """A method that uses the reference image without an adapter; see `sampling.training_free`."""

    params: Section
    build: Callable[[Any, "Sampler"], Generate]
    predictions: Callable[[Any, int, int], int]


class Paired:
    """A pipeline with one image prompt per image of the batch."""

    def prepare_ip_adapter_image_embeds(
        self, _image: None, embeds: list[Tensor], *_: Any
    ) -> list[Tensor]:
        """Return `embeds` unchanged: they have the batch's size, the unconditional half first."""
        return embeds


class PairedPipeline(Paired, StableDiffusionPipeline):
    """The pipeline of Stable Diffusion 1 and 2."""


class PairedXLPipeline(Paired, StableDiffusionXLPipeline):
    """The pipeline of SDXL."""


TEXT_PARTS = ("text_encoder", "tokenizer")
PIPELINES: dict[int, tuple[Any, dict[str, Any]]] = {
    1: (
        PairedPipeline,
        {
            **dict.fromkeys([*TEXT_PARTS, "safety_checker", "feature_extractor"]),
            "requires_safety_checker": False,
        },
    ),
    2: (
        PairedXLPipeline,
        {
            **dict.fromkeys([*TEXT_PARTS, *(f"{part}_2" for part in TEXT_PARTS)]),
            "add_watermarker": False,
        },
    ),
}
"""By the number of text encoders: the class, and what it is built without; texts come embedded."""


class Sampler:
    """A frozen pipeline with or without an adapter, and the items that it generates images of."""

    def __init__(
        self,
        params: SampleParams,
        encoded: Path,
        backbone: Path,
        adapter: Path | None,
        device: torch.device | str = "cpu",
        shards: Path | None = None,
        variant: Variant | None = None,
        split: str = "validation",
    ) -> None:
        """Load the encoded items, the pipeline and the adapter.

        Args:
            encoded: folder of stage `encode`.
            backbone: folder in diffusers layout.
            adapter: folder of a trained adapter; None: the base model alone.
            device: device of the networks.
            shards: folder of stage `prepare`; needed by an adapter with its own image encoder.
            variant: row of the adapter; None: the variant stored with it.
            split: whose items images are generated of.

        Raises:
            UserError: an input is missing or does not fit the others.
        """
        self.params = params
        self.device = torch.device(device)
        row = (variant or load_variant(adapter)) if adapter else None
        patches = row is not None and row.reads_stored_patches
        self.data, self.split = EncodedSplit(encoded, split, patches), split
        self.unet = load_part(backbone, "unet").to(device, memory_format=torch.channels_last)
        if adapter and row:
            check_row(adapter, row)
        self.adapter = load_adapter(adapter, self.unet) if adapter else None
        if row and self.adapter:
            self.adapter.requires_grad_(False)
            self.adapter.attach(self.unet)
            self.adapter.scale = params.scale
            self.prompts = self.prompts_of(row, shards)
        scheduler = solver(backbone)
        if params.steps > (timesteps := scheduler.config["num_train_timesteps"]):
            raise UserError(
                f"sample.steps = {params.steps:,}, but the noise schedule of {backbone} has "
                f"{timesteps:,} timesteps: lower it"
            )
        self.encoders = load_text_encoders(backbone).to(device)
        kind, absent = PIPELINES[len(self.encoders.models)]
        vae = load_part(backbone, "vae")
        self.pipeline = kind(vae=vae, unet=self.unet, scheduler=scheduler, **absent).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.shape = tuple(self.data.row(0)[0].shape)
        self.generate: Generate = self.from_noise

    def prompts_of(self, variant: Variant, shards: Path | None) -> Prompts:
        """Image prompts: stored by stage `encode`, or by the adapter's own image encoder."""
        if variant.image_encoder is None:
            return encoded_prompts(self.data)
        prompts = OwnPrompts(self.data, variant, shards, self.params.batch_size, self.split)
        prompts([image_id.number for image_id in self.image_ids()])  # in one pass over the shards
        return prompts

    def image_ids(self) -> list[ImageId]:
        """All images of a protocol, item by item."""
        items = choose_items(self.data.samples, self.params.items, self.params.seed)
        return [
            ImageId(number, self.data.samples[number]["key"], k)
            for number in items
            for k in range(self.params.images_per_item)
        ]

    def make(self, image_ids: list[ImageId], with_text: bool) -> list[Image.Image]:
        """Generate images in one batch, with or without their captions."""
        return self.draw(image_ids, self.captions(image_ids) if with_text else None)

    def captions(self, image_ids: list[ImageId]) -> Texts:
        """Embedded captions of the items of N images."""
        texts = torch.stack([self.data.row(image_id.number)[2] for image_id in image_ids])
        return as_texts(texts, self.encoders)

    @cached_property
    def empty(self) -> Texts:
        """The embedded empty caption."""
        return as_texts(self.data.empty[None], self.encoders)

    @torch.no_grad()
    def draw(self, image_ids: list[ImageId], text: Texts | None) -> list[Image.Image]:
        """Generate images from their items' image prompts and from text embeddings.

        The noise is drawn on the CPU, so it is the same on every device.

        Args:
            text: of N images; None: the empty caption.
        """
        empty = self.empty[[0] * len(image_ids)]
        conditions = {
            **(empty if text is None else text).arguments(),
            **empty.arguments("negative_"),
            "num_inference_steps": self.params.steps,
            "guidance_scale": self.params.guidance_scale,
        }
        with autocast(self.device, self.params.mixed_precision):
            images: list[Image.Image] = self.generate(image_ids, conditions).images
        return images

    def from_noise(self, image_ids: list[ImageId], conditions: dict[str, Any]) -> Any:
        """Generate from noise, with the image prompts of an adapter; see `Generate`."""
        height, width = image_size(self.shape)
        latents = [noise(p.key, p.k, self.params.seed, self.shape) for p in image_ids]
        prompts = self.image_prompts(image_ids)
        return self.pipeline(
            latents=torch.stack(latents),
            height=height,
            width=width,
            ip_adapter_image_embeds=prompts,
            **conditions,
        )

    def references(self, image_ids: list[ImageId]) -> Float[Tensor, "batch channels height width"]:
        """Scaled latents `(N, C, h, w)` of the items' reference images, fp32."""
        return torch.stack([self.data.row(p.number)[0].float() for p in image_ids])

    def image_prompts(
        self, image_ids: list[ImageId]
    ) -> list[Float[Tensor, "batch 1 *features"]] | None:
        """Image prompts `(N or 2N, 1, ..)`; under guidance, unconditional embeddings come first."""
        if self.adapter is None:
            return None
        prompts, unconditional = self.prompts([image_id.number for image_id in image_ids])
        negative = [unconditional.expand_as(prompts)] if self.params.guidance_scale > 1 else []
        return [torch.cat([*negative, prompts])[:, None].to(self.device)]


def solver(backbone: Path) -> DPMSolverMultistepScheduler:
    """Second-order DPM-Solver++ (Lu et al. 2022) with the backbone's noise schedule."""
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
    split: str = "validation",
    training_free: TrainingFree | None = None,
) -> int:
    """Write `out/<protocol>.tar` with members `<key>.<k>.png`; return the number of images.

    Processes that `accelerate launch` starts share the images. A killed run resumes: images that
    are already generated are kept.

    Args:
        params: how images are generated.
        encoded: folder of stage `encode`.
        backbone: folder in diffusers layout.
        adapter: folder of a trained adapter; None: the base model alone.
        protocols: some of `PROTOCOLS`.
        out: folder named after the method.
        shards: see `Sampler`.
        variant: see `Sampler`.
        split: whose items images are generated of.
        training_free: how the base model alone uses the reference image; None: not at all.

    Raises:
        UserError: a protocol is unknown, or an input is missing or does not fit the others.
    """
    if unknown := [protocol for protocol in protocols if protocol not in PROTOCOLS]:
        raise UserError(f"unknown protocol {unknown[0]!r} (there are {', '.join(PROTOCOLS)})")
    state = process_state()
    # the batch size changes no image, so a resumed run may use another
    same = params.model_copy(update={"batch_size": 1})
    identity = fingerprint(backbone)
    facts: dict[str, Any] = {"sample": same, "backbone": identity, "split": split}
    if training_free:
        facts["training_free"] = training_free.params
    own = [adapter / WEIGHTS, adapter / CONFIG] if adapter else []
    made = resume_path(f"sample-{out.name}", facts, encoded / MANIFEST, *own)
    if adapter:
        check_backbone(adapter, identity)
    sampler = Sampler(params, encoded, backbone, adapter, state.device, shards, variant, split)
    if training_free:
        if len(sampler.encoders.models) > 1:
            raise UserError(
                "training_free takes base models with one text encoder, and "
                f"{backbone} has {len(sampler.encoders.models)}: leave it empty"
            )
        sampler.generate = training_free.build(training_free.params, sampler)
    image_ids = sampler.image_ids()
    # batch first, then share: rounding depends on the composition of the batch
    mine = share(list(chunked(image_ids, params.batch_size)), state)
    quiet = not state.is_main_process
    with exclusive_run(made, is_main=state.is_main_process):
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
                    pack(made / protocol, image_ids, samples_tar(beside, protocol))
            shutil.rmtree(made)
        state.wait_for_everyone()
    return len(image_ids) * len(protocols)


def check_backbone(adapter: Path, identity: str) -> None:
    """Check that an adapter was trained over the backbone with the fingerprint `identity`.

    An adapter without a recorded backbone, such as an adopted one, passes.

    Raises:
        UserError: it was trained over another backbone.
    """
    if load_config(adapter).backbone.get("digest", identity) != identity:
        raise InputError(
            f"{adapter} was trained over another backbone, or this one has changed since", adapter
        )


def make_missing(sampler: Sampler, batch: list[ImageId], with_text: bool, folder: Path) -> None:
    """Generate and write the images of a batch that `folder` lacks."""
    missing = [image_id for image_id in batch if not (folder / f"{image_id.name}.png").exists()]
    images = sampler.make(missing, with_text) if missing else []
    for image_id, image in zip(missing, images, strict=True):
        with publish(folder / f"{image_id.name}.png") as beside:
            beside.write_bytes(to_png(image))


def pack(folder: Path, image_ids: list[ImageId], path: Path) -> None:
    """Pack the image files that `make_missing` wrote into one tar."""
    files = ((image_id, folder / f"{image_id.name}.png") for image_id in image_ids)
    write_images(path, (Generated(p.key, p.k, file.read_bytes()) for p, file in files))
