"""Trained adapters on any Stable Diffusion pipeline of diffusers, in three lines.

    pipe = StableDiffusionPipeline.from_pretrained("data/backbone").to(torch.float32)
    image_prompt = load_adapter(pipe, "models/ip_adapter")
    pipe("a red hat", **image_prompt(image, scale=0.8)).images[0].save("out.png")

It works likewise with image to image, inpainting and ControlNet, since the adapter is in the UNet
and uses diffusers' interface for image prompts.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from adapterbench.adapters.core import storage
from adapterbench.adapters.core.adapter import Adapter, attach_together, finite
from adapterbench.adapters.core.channel import MASKS
from adapterbench.core.errors import UserError
from adapterbench.exchange import blocks, hub
from adapterbench.exchange.embeddings import mean, noised
from adapterbench.exchange.masks import Masks, mask_tensor
from adapterbench.exchange.presets import read_preset
from adapterbench.exchange.reader import Reader, beside
from adapterbench.exchange.schedule import Curve, Schedule, Steps, weight_at
from adapterbench.frozen.load import LOCAL, Clip
from adapterbench.frozen.prompts import unconditional_embeds

Images = Image.Image | Sequence[Image.Image] | Tensor
"""An image prompt: an image, several that are combined, or their embeddings."""
Scale = float | str | Sequence[float] | Mapping[str, Any]
"""lambda: a number, a preset's name, one for each mask, or by block or layer."""


@overload
def load_adapter(  # type: ignore[overload-overlap]  # a str is a sequence of str
    pipeline: DiffusionPipeline,
    folder: Path | str,
    image_encoder: Path | str | Clip | None = None,
    pretrained: str | None = None,
    fit: str = "crop",
    revision: str | None = None,
) -> "ImagePrompt": ...


@overload
def load_adapter(
    pipeline: DiffusionPipeline,
    folder: Sequence[Path | str],
    image_encoder: Path | str | Clip | Sequence[Path | str | Clip | None] | None = None,
    pretrained: str | Sequence[str | None] | None = None,
    fit: str = "crop",
    revision: str | Sequence[str | None] | None = None,
) -> "ImagePrompts": ...


def load_adapter(
    pipeline: DiffusionPipeline,
    folder: Any,
    image_encoder: Any = None,
    pretrained: Any = None,
    fit: str = "crop",
    revision: Any = None,
) -> "ImagePrompt | ImagePrompts":
    """Attach a trained adapter to a pipeline, or several together, until `detach`.

    Args:
        pipeline: any with a Stable Diffusion UNet, compiled or not; it is not subclassed, only its
            UNet changes.
        folder: of the adapter, such as `models/ip_adapter`, or the hub's repository `user/name`, of
            which only safetensors and JSON are read; a list attaches several.
        image_encoder: the model that the adapter was trained with, loaded with the first image: an
            open_clip name, such as `ViT-B-32`, a folder, or a loaded `Clip`. Left out, it is the
            `image_encoder/` beside the pipeline's own parts; one that the adapter names is shown in
            an error, never loaded. Embeddings need none. Of several adapters: for all, or a list.
        pretrained: open_clip weights tag, such as `openai`; None for a folder. Likewise.
        fit: how an image that is not square is read: `crop` its centre, `pad` it with white, or
            average square `tiles` that cover it.
        revision: branch, tag or commit of the hub's repository (default: `main`). Likewise.

    Raises:
        UserError: the pipeline has no such UNet or already an adapter, or an adapter is missing,
            damaged or of another architecture, or the hub cannot be reached.
    """
    unet = getattr(pipeline, "unet", None)
    unet = getattr(unet, "_orig_mod", unet)  # `torch.compile` wraps it
    if not isinstance(unet, UNet2DConditionModel):
        raise UserError(
            f"{type(pipeline).__name__} has no Stable Diffusion UNet: use another pipeline"
        )
    if unet.device.type == "meta":
        raise UserError("the UNet is offloaded: load_adapter first, then enable the offload")
    several = isinstance(folder, list | tuple)
    folders = folder if several else [folder]
    encoders = for_each(image_encoder, len(folders), "image_encoder")
    tags = for_each(pretrained, len(folders), "pretrained")
    revisions = for_each(revision, len(folders), "revision")
    prompts = [
        image_prompt(pipeline, unet, local_folder(named, at), encoder, tag, fit)
        for named, at, encoder, tag in zip(folders, revisions, encoders, tags, strict=True)
    ]
    adapters = [prompt.adapter for prompt in prompts]
    if not adapters:
        raise UserError("no adapter is named: give folders, such as models/ip_adapter")
    attach_together(adapters, unet)
    for adapter in adapters:
        adapter.keep_weights()
    return ImagePrompts(prompts) if several else prompts[0]


def for_each(value: Any, count: int, name: str) -> list[Any]:
    """An argument for several adapters as a list; a value that is no list applies to all.

    Raises:
        UserError: the list is of another length.
    """
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise UserError(f"{name}: got a list of {len(value)} for {count} adapter(s): give each one")
    return list(value)


def local_folder(named: Any, revision: str | None) -> Path:
    """The adapter's folder on this machine; a repository of the hub is downloaded.

    Raises:
        UserError: it is neither, or the download fails.
    """
    if revision is None and isinstance(named, Path | str) and Path(named).is_dir():
        return Path(named)
    if hub.is_repository(named, revision):
        return hub.download(named, revision)
    if revision is not None:
        raise UserError(
            f"revision {revision!r} is for a repository of the hub, and {str(named)!r} is not the "
            "name of one: leave it out, or name one, such as user/name"
        )
    raise UserError(
        f"{str(named)!r} is no folder of an adapter on this machine: name one, such as "
        "models/ip_adapter, or a repository of the hub; `adapterbench adopt` makes a folder of an "
        "IP-Adapter's file"
    )


def image_prompt(
    pipeline: DiffusionPipeline,
    unet: UNet2DConditionModel,
    folder: Path,
    image_encoder: Path | str | Clip | None,
    pretrained: str | None,
    fit: str,
) -> "ImagePrompt":
    """The adapter in `folder`, not attached yet (see `load_adapter`)."""
    adapter = storage.load_adapter(folder, unet).requires_grad_(False)
    trained_with = storage.load_config(folder)
    if image_encoder is None and trained_with.image_encoder is None:
        image_encoder = beside(pipeline)
    elif isinstance(image_encoder, Path):
        image_encoder = f"{LOCAL}{image_encoder}"
    reader = Reader(image_encoder, pretrained, trained_with, adapter.reads_patches, fit)
    # a function, so that copying the UNet does not copy the pipeline
    steps = Steps(lambda: pipeline.scheduler)
    return ImagePrompt(adapter, unet, folder, reader, steps)


class ImagePrompt:
    """An attached adapter; called with images, it returns the arguments for the pipeline."""

    def __init__(
        self,
        adapter: Adapter,
        unet: UNet2DConditionModel,
        folder: Path,
        reader: Reader,
        steps: Steps,
    ) -> None:
        """See `load_adapter`.

        Args:
            adapter: of `folder`.
            unet: the UNet that it is attached to.
            folder: of the adapter, for its presets.
            reader: makes embeddings of images.
            steps: maps timesteps to steps.
        """
        self.adapter = adapter
        self.unet = unet
        self.folder = folder
        self.reader = reader
        self.steps = steps

    def __call__(
        self,
        images: Images,
        scale: Scale = 1.0,
        guidance_scale: float = 7.5,
        *,
        masks: Masks | None = None,
        weights: Sequence[float] | None = None,
        average: bool = False,
        negative: Images | None = None,
        start: float = 0.0,
        end: float = 1.0,
        curve: Curve | None = None,
        noise: float = 0.0,
        noise_seed: int = 0,
    ) -> dict[str, Any]:
        """Arguments for the pipeline's next call: `pipe("a text", **image_prompt(image))`.

        Args:
            images: an image, several that are combined, or their embeddings `(c,)` or
                `(n, c)`, patch features `(S, c)` or `(n, S, c)` of an adapter that reads those;
                all texts of a batch get the same, as in diffusers' pipelines.
            scale: lambda, from this call on: of all layers; by diffusers' blocks, such as
                `{"up": {"block_0": [0.0, 1.0, 0.0]}}`; by the layer's path in the UNet
                (`list(image_prompt.adapter.layers)`); or the name of a preset that was measured,
                such as `style`. Blocks and layers left out get 0. With masks a list is one for
                each image.
            guidance_scale: classifier-free guidance weight, handed on to the pipeline; it decides
                whether an unconditional half (no image) goes with the prompt.
            masks: where each image acts: white in a PIL image in the proportions of what is
                generated, one for each of `images`; each then has its own attention.
            weights: relative weights of the images; [2, 1] equals giving the first one twice.
            average: whether the mean of the embeddings, by `weights`, is the image prompt.
            negative: image that guidance leads away from, in place of no image; as many as
                `images`, or one.
            start: fraction of the steps before the image prompt acts.
            end: fraction of the steps after which it no longer acts.
            curve: factor of lambda: a function of the fraction of steps done, or a list
                spread over the steps.
            noise: share of noise in the embedding, from 0 to 1.
            noise_seed: of that noise.

        Raises:
            UserError: the adapter is detached, there is no image or no encoder, an embedding of
                another width or not finite, a block, layer or preset that does not exist, an
                argument that is out of its range, or numbers of images that do not agree.
        """
        if not self.adapter.is_attached(self.unet):
            raise UserError("the adapter is no longer on the pipeline: load_adapter it again")
        guidance_scale = finite(guidance_scale, "guidance_scale")
        embeds = self.embeds(images)[0]
        if average:
            embeds, weights = mean(embeds, weights), None
        embeds = noised(embeds, noise, noise_seed)[None]
        # as `pipeline.do_classifier_free_guidance` decides
        if guidance_scale > 1 and self.unet.config["time_cond_proj_dim"] is None:
            embeds = torch.cat([self.unconditional(embeds, negative), embeds])
        elif negative is not None:
            raise UserError(
                "a negative image prompt acts through guidance, of which there is none: give a "
                "guidance_scale above 1"
            )
        inputs = {"ip_adapter_image_embeds": [embeds], "guidance_scale": guidance_scale}
        if masks is not None:
            inputs["cross_attention_kwargs"] = {MASKS: [mask_tensor(masks)]}
        by_layer = self.layer_scales(scale, masked=masks is not None)
        schedule = Schedule(start, end, curve)
        self.adapter.prompt_weights = weights
        self.adapter.scale = by_layer
        self.adapter.weight_at = (
            partial(weight_at, schedule, self.steps) if schedule.varies else None
        )
        self.adapter.check_images(embeds.shape[1], masked=masks is not None)
        return inputs

    def layer_scales(self, scale: Scale, masked: bool) -> Any:
        """lambda in the form of `Adapter.scale`.

        Raises:
            UserError: a preset or block that does not exist, or a list without masks.
        """
        if isinstance(scale, str):
            scale = read_preset(self.folder, scale)
        if isinstance(scale, list | tuple) and not masked:
            finite(scale, "scale", ", or masks and a number for each image")
        if isinstance(scale, Mapping) and not scale.keys().isdisjoint(blocks.SIDES):
            scale = blocks.by_layer(scale, self.adapter.layers)
        return scale

    def embeds(self, images: Images) -> Tensor:
        """Image embeddings `(1, n, c)`, or `(1, n, S, c)`, in the UNet's dtype and on its device.

        Raises:
            UserError: see `__call__`.
        """
        embeds = images if isinstance(images, Tensor) else self.encode(images)
        axes = 1 + self.adapter.reads_patches
        width = self.adapter.embed_dim
        if embeds.ndim not in (axes, axes + 1) or embeds.shape[-1] != width:
            one, several = f"({width},)", f"(n, {width})"
            if self.adapter.reads_patches:
                one, several = f"(patches, {width})", f"(n, patches, {width})"
            raise UserError(
                f"image embeddings have shape {tuple(embeds.shape)}, this adapter takes {one} or "
                f"{several}: use the image encoder it was trained with"
            )
        batch = embeds[None] if embeds.ndim > axes else embeds[None, None]
        # where the adapter is: the UNet may be offloaded
        batch = batch.to(next(self.adapter.parameters()).device, self.unet.dtype)
        if not batch.isfinite().all():
            raise UserError(
                f"the image embeddings are not finite in {self.unet.dtype}: give others, or move "
                "the pipeline to torch.float32"
            )
        return batch

    def unconditional(self, embeds: Tensor, negative: Images | None) -> Tensor:
        """The unconditional or the negative image prompts, in the shape of `embeds`.

        Args:
            embeds: `(1, n, ..)`.
            negative: see `__call__`.

        Raises:
            UserError: there are more negative images than one, and not n; or see `Reader.clip`.
        """
        if negative is not None:
            negatives = self.embeds(negative)
            if negatives.shape[1] not in {1, embeds.shape[1]}:
                raise UserError(
                    f"{negatives.shape[1]} negative images for {embeds.shape[1]} image(s): give as "
                    "many, or one"
                )
            return negatives.expand_as(embeds)
        if not self.adapter.reads_patches:
            return unconditional_embeds(embeds)
        return self.reader.unconditional_patches().to(embeds).expand_as(embeds)

    def encode(self, images: Image.Image | Sequence[Image.Image], fit: str | None = None) -> Tensor:
        """Embeddings `(n, c)`, or patches `(n, S, c)`, of images, which are read as in training.

        Args:
            images: one or several.
            fit: as `load_adapter` has it; None for what that was given.

        Raises:
            UserError: there is none, or they are not PIL images, or one is damaged.
        """
        return self.reader(images, fit)

    def detach(self) -> None:
        """Detach this adapter and those attached with it; the pipeline is restored exactly.

        Raises:
            UserError: it is detached already.
        """
        self.adapter.detach(self.unet)


class ImagePrompts:
    """Several adapters on one pipeline; called with images for each, it returns the arguments."""

    def __init__(self, prompts: Sequence[ImagePrompt]) -> None:
        self.prompts = prompts

    def __call__(
        self,
        images: Sequence[Images],
        scale: Scale | Sequence[Scale] = 1.0,
        guidance_scale: float = 7.5,
        **options: Any,
    ) -> dict[str, Any]:
        """Arguments for the pipeline's next call; see `ImagePrompt`.

        Args:
            images: an entry for each adapter.
            scale: for all adapters, or a list with one for each, as `set_ip_adapter_scale` has it.
            guidance_scale: of the pipeline.
            options: what else `ImagePrompt` takes: for all adapters, or a list with one for each.

        Raises:
            UserError: a list is not of one entry for each adapter, or see `ImagePrompt`.
        """
        count = len(self.prompts)
        if not isinstance(images, list | tuple):
            raise UserError(
                f"images: give a list with an image prompt for each of {count} adapters"
            )
        lists = {
            name: for_each(value, count, name)
            for name, value in {"images": images, "scale": scale, **options}.items()
        }
        parts = [
            prompt(guidance_scale=guidance_scale, **{name: lists[name][i] for name in lists})
            for i, prompt in enumerate(self.prompts)
        ]
        embeds = [entry for part in parts for entry in part["ip_adapter_image_embeds"]]
        masks = [
            mask
            for part in parts
            for mask in part.get("cross_attention_kwargs", {MASKS: [None]})[MASKS]
        ]
        inputs = {**parts[0], "ip_adapter_image_embeds": embeds}
        if any(mask is not None for mask in masks):
            inputs["cross_attention_kwargs"] = {MASKS: masks}
        return inputs

    def __getitem__(self, number: int) -> ImagePrompt:
        """The image prompt of one adapter, such as to `encode` images for it."""
        return self.prompts[number]

    def detach(self) -> None:
        """Detach all adapters; the pipeline is restored exactly.

        Raises:
            UserError: it is detached already.
        """
        self.prompts[0].detach()
