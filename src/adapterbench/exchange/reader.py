"""Encodes image prompts with the image encoder that the adapter was trained with."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from adapterbench.core.config import ImageEncoderParams
from adapterbench.core.errors import UserError
from adapterbench.formats.image import BadImageError, to_rgb
from adapterbench.frozen.load import Clip, bundled_encoder, load_clip
from adapterbench.frozen.prompts import FITS, image_prompts


def beside(pipeline: DiffusionPipeline) -> str | None:
    """open_clip's name of the image encoder in the folder that a pipeline was loaded from."""
    return bundled_encoder(Path(pipeline.config.get("_name_or_path") or ""))


class Reader:
    """An image encoder, loaded with the first image, and the `fit` of images to a square."""

    def __init__(
        self,
        image_encoder: str | Clip | None,
        pretrained: str | None,
        trained_with: ImageEncoderParams,
        reads_patches: bool,
        fit: str,
    ) -> None:
        """Check `fit`; nothing is loaded yet.

        Args:
            image_encoder: open_clip name, or a model that is loaded.
            pretrained: open_clip weights tag.
            trained_with: the encoder that the adapter names, for the error message; never loaded.
            reads_patches: whether it reads the features of patches.
            fit: a key of `FITS`.

        Raises:
            UserError: there is no such `fit`.
        """
        self.image_encoder, self.pretrained = image_encoder, pretrained
        self.trained_with = trained_with
        self.reads_patches = reads_patches
        self.fit = checked_fit(fit)

    def __call__(self, images: Image.Image | Iterable[Image.Image], fit: str | None) -> Tensor:
        """Embeddings `(n, c)`, or patches `(n, S, c)`, of images, which are read as in training.

        Raises:
            UserError: there is no image, one is damaged, or they are not PIL images.
        """
        given = list(images) if isinstance(images, Iterable) else [images]
        if not given or not all(isinstance(image, Image.Image) for image in given):
            raise UserError(
                "an image prompt is a PIL image, a list of them, or an embedding: open a file with "
                "PIL.Image.open"
            )
        try:
            whole = [to_rgb(image) for image in given]
        except BadImageError as error:
            raise UserError(f"an image prompt cannot be used ({error}): take another") from error
        chosen = self.fit if fit is None else checked_fit(fit)
        return image_prompts(self.clip, whole, self.reads_patches, chosen)[0]

    def unconditional_patches(self) -> Tensor:
        """The unconditional prompt: patch features of a zero image `(1, S, c)`.

        Raises:
            UserError: see `clip`.
        """
        return image_prompts(self.clip, [Image.new("RGB", (1, 1))], patches=True)[1]

    @cached_property
    def clip(self) -> Clip:
        """The image encoder.

        Raises:
            UserError: none is given, or it cannot be loaded.
        """
        if self.image_encoder is None:
            named = self.trained_with
            hint = f" It names {named}: check that you trust it." if named.image_encoder else ""
            raise UserError(
                f"which image encoder was the adapter trained with?{hint} Name it: "
                "load_adapter(pipe, folder, image_encoder='ViT-B-32', pretrained='openai')"
            )
        if isinstance(self.image_encoder, Clip):
            return self.image_encoder
        return load_clip(self.image_encoder, self.pretrained)


def checked_fit(fit: str) -> str:
    """Check that `fit` is a key of `FITS`.

    Raises:
        UserError: it is not.
    """
    if fit not in FITS:
        raise UserError(f"fit = {fit!r}: choose one of {', '.join(FITS)}")
    return fit
