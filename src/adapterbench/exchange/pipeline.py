"""A trained adapter on any Stable Diffusion pipeline of diffusers, in three lines.

    pipe = StableDiffusionPipeline.from_pretrained("data/backbone").to(torch.float32)
    image_prompt = load_adapter(pipe, "models/ip_adapter")
    pipe("a red hat", **image_prompt(picture, scale=0.8)).images[0].save("out.png")

Image to image, inpainting and ControlNet take it likewise: the adapter sits in the UNet, behind
diffusers' own channel for image prompts.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from adapterbench.adapters.core import storage
from adapterbench.adapters.core.adapter import Adapter, finite
from adapterbench.core.config import OwnEncoder
from adapterbench.core.errors import UserError
from adapterbench.formats.image import BadImageError, to_rgb
from adapterbench.frozen.load import LOCAL, Clip, load_clip, own_encoder
from adapterbench.frozen.prompts import image_prompts, unconditional_embeds


def load_adapter(
    pipeline: DiffusionPipeline,
    folder: Path | str,
    image_encoder: Path | str | None = None,
    pretrained: str | None = None,
) -> "ImagePrompt":
    """Attach a trained adapter to a pipeline, until `ImagePrompt.detach`.

    Args:
        pipeline: any with a Stable Diffusion UNet, compiled or not; it is not subclassed, only its
            UNet changes.
        folder: of the adapter, such as `models/ip_adapter`.
        image_encoder: the model that the adapter was trained with, loaded with the first image: an
            open_clip name, such as `ViT-B-32`, or a folder. Left out, it is the `image_encoder/`
            beside the pipeline's own parts; one that the adapter itself names is told, never
            loaded. Embeddings need none.
        pretrained: open_clip weights tag, such as `openai`; None for a folder.

    Raises:
        UserError: the pipeline has no such UNet or already an adapter, or the adapter is missing,
            damaged or of another architecture.
    """
    unet = getattr(pipeline, "unet", None)
    unet = getattr(unet, "_orig_mod", unet)  # `torch.compile` wraps it
    if not isinstance(unet, UNet2DConditionModel):
        raise UserError(
            f"{type(pipeline).__name__} has no Stable Diffusion UNet: use another pipeline"
        )
    if not (isinstance(folder, Path | str) and Path(folder).is_dir()):
        raise UserError(
            f"{str(folder)!r} is no folder of an adapter on this machine: name one, such as "
            "models/ip_adapter; `adapterbench adopt` makes one of an IP-Adapter's file"
        )
    adapter = storage.load_adapter(Path(folder), unet).requires_grad_(False)
    adapter.attach(unet)
    adapter.keep_weights()
    trained_with: OwnEncoder = storage.load_config(Path(folder))
    if image_encoder is None and trained_with.image_encoder is None:
        image_encoder = beside(pipeline)
    elif isinstance(image_encoder, Path):
        image_encoder = f"{LOCAL}{image_encoder}"
    return ImagePrompt(adapter, unet, image_encoder, pretrained, trained_with)


def beside(pipeline: DiffusionPipeline) -> str | None:
    """open_clip's name of the image encoder in the folder that a pipeline was loaded from."""
    return own_encoder(Path(pipeline.config.get("_name_or_path") or ""))


class ImagePrompt:
    """An attached adapter; called with pictures, it gives a pipeline's arguments for them."""

    def __init__(
        self,
        adapter: Adapter,
        unet: UNet2DConditionModel,
        image_encoder: str | None,
        pretrained: str | None,
        trained_with: OwnEncoder,
    ) -> None:
        """See `load_adapter`; `trained_with` is what the adapter says, to tell, never to load."""
        self.adapter = adapter
        self.unet = unet
        self.image_encoder, self.pretrained = image_encoder, pretrained
        self.trained_with = trained_with

    def __call__(
        self,
        images: Image.Image | Sequence[Image.Image] | Tensor,
        scale: float | Mapping[str, float] = 1.0,
        guidance_scale: float = 7.5,
    ) -> dict[str, Any]:
        """What to pass to the pipeline's next call: `pipe("a text", **image_prompt(picture))`.

        Args:
            images: a picture, several that count together, or their embeddings `(c,)` or
                `(n, c)`, patch features `(S, c)` or `(n, S, c)` of an adapter that reads those;
                all texts of a batch get the same, as diffusers' pipelines have it.
            scale: lambda, from this call on, of all layers, or by the layer's path in the UNet
                (`list(image_prompt.adapter.layers)`; layers left out get 0).
            guidance_scale: classifier-free guidance weight, handed on to the pipeline; it decides
                whether an unconditional half (no picture) goes with the prompt.

        Raises:
            UserError: the adapter is detached, there is no picture or no encoder, an embedding of
                another width or not finite, a layer that does not exist, or a number that is none.
        """
        if not self.adapter.is_attached(self.unet):
            raise UserError("the adapter is no longer on the pipeline: load_adapter it again")
        guidance_scale = finite(guidance_scale, "guidance_scale")
        embeds = self.embeds(images)
        self.adapter.scale = scale
        # as `pipeline.do_classifier_free_guidance` decides
        if guidance_scale > 1 and self.unet.config.time_cond_proj_dim is None:
            embeds = torch.cat([self.unconditional(embeds), embeds])
        return {"ip_adapter_image_embeds": [embeds], "guidance_scale": guidance_scale}

    def embeds(self, images: Image.Image | Sequence[Image.Image] | Tensor) -> Tensor:
        """Image embeddings `(1, n, c)`, or `(1, n, S, c)`, in the UNet's dtype and on its device.

        Raises:
            UserError: see `__call__`.
        """
        found = images if isinstance(images, Tensor) else self.encode(images)
        axes = 1 + self.adapter.reads_patches
        width = self.adapter.embed_dim
        if found.ndim not in (axes, axes + 1) or found.shape[-1] != width:
            one, several = f"({width},)", f"(n, {width})"
            if self.adapter.reads_patches:
                one, several = f"(patches, {width})", f"(n, patches, {width})"
            raise UserError(
                f"image embeddings have shape {tuple(found.shape)}, this adapter takes {one} or "
                f"{several}: use the image encoder it was trained with"
            )
        batch = found[None] if found.ndim > axes else found[None, None]
        batch = batch.to(self.unet.device, self.unet.dtype)
        if not batch.isfinite().all():
            raise UserError(
                f"the image embeddings are not finite in {self.unet.dtype}: give others, or move "
                "the pipeline to torch.float32"
            )
        return batch

    def unconditional(self, embeds: Tensor) -> Tensor:
        """The unconditional image prompt, as often as there are `embeds (1, n, ..)`.

        Raises:
            UserError: see `clip`.
        """
        if not self.adapter.reads_patches:
            return unconditional_embeds(embeds)
        _, blank = image_prompts(self.clip, [Image.new("RGB", (1, 1))], patches=True)
        return blank.to(embeds).expand_as(embeds)

    def encode(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """Embeddings `(n, c)`, or patches `(n, S, c)`, of images, which are read as in training.

        Raises:
            UserError: there is none, or they are not PIL images, or one is damaged.
        """
        pictures = list(images) if isinstance(images, Iterable) else [images]
        if not pictures or not all(isinstance(picture, Image.Image) for picture in pictures):
            raise UserError(
                "an image prompt is a PIL image, a list of them, or an embedding: open a file with "
                "PIL.Image.open"
            )
        try:
            whole = [to_rgb(picture) for picture in pictures]
        except BadImageError as error:
            raise UserError(f"an image prompt cannot be used ({error}): take another") from error
        return image_prompts(self.clip, whole, self.adapter.reads_patches)[0]

    @cached_property
    def clip(self) -> Clip:
        """The image encoder.

        Raises:
            UserError: it is not known or cannot be loaded.
        """
        if self.image_encoder is None:
            own = self.trained_with
            hint = f" It says {own}: see that you trust that." if own.image_encoder else ""
            raise UserError(
                f"which image encoder was the adapter trained with?{hint} Name it: "
                "load_adapter(pipe, folder, image_encoder='ViT-B-32', pretrained='openai')"
            )
        return load_clip(self.image_encoder, self.pretrained)

    def detach(self) -> None:
        """Give the pipeline back as it was, to the last bit.

        Raises:
            UserError: it is detached already.
        """
        self.adapter.detach(self.unet)
