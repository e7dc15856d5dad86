"""Configurations of a backbone's parts, without weights, and the tensor shapes they imply."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field

from adapterbench.cli.paths import BACKBONE
from adapterbench.cli.settings import check_profile, profiles
from adapterbench.core.config import Count, DataParams, EncodeParams, Width, load_params
from adapterbench.core.documents import Document, read_document
from adapterbench.core.errors import UserError, one_line

PACKAGED = Path(str(files("adapterbench.backbone") / "configs"))
"""Folder of `<profile>_<part>.json`: configurations of backbones that need not be fetched."""
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""Parts that embed texts; SDXL has both."""

T = TypeVar("T")


class Vae(Document):
    """Fields of a VAE configuration that determine the latents."""

    block_out_channels: Annotated[list[Width], Field(min_length=1, max_length=8)]
    latent_channels: Width


class TextEncoder(Document):
    """Fields of a text encoder configuration that determine the embeddings."""

    max_position_embeddings: Count
    hidden_size: Width


@dataclass(frozen=True)
class Architecture:
    """The configurations of a Stable Diffusion model."""

    name: str
    """Name in messages."""
    folder: Path
    """Folder of the model, which need not exist yet."""
    pattern: str
    """Path of a configuration; `{part}` is `unet`, `vae` or one of `TEXT_ENCODERS`."""

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a part.

        Raises:
            UserError: the file is missing or is not a JSON object.
        """
        return self.read(dict[str, Any], part)

    def read(self, kind: type[T], part: str) -> T:
        """The configuration of a part as `kind`.

        Raises:
            UserError: the file is missing or has another structure.
        """
        path = self.path(part)
        if not path.is_file():
            raise UserError(
                f"{path} is missing: fetch the model (stage backbone), or count over another: "
                f"--profile ({', '.join(profiles())}) or --backbone FOLDER"
            )
        remedy = "fetch it again from the model's source"
        return read_document(kind, path, f"the configuration of a {part}", remedy)

    def path(self, part: str) -> Path:
        """Where the configuration of a part is, if the model has it."""
        return Path(self.pattern.format(part=part))

    @property
    def text_encoders(self) -> list[str]:
        """The model's text encoders: the first, and a second if it has one."""
        first, second = TEXT_ENCODERS
        return [first, second] if self.path(second).is_file() else [first]

    @contextmanager
    def building(self) -> Iterator[None]:
        """Turn errors while building models from the configurations into a `UserError`.

        Raises:
            UserError: the configurations have impossible values or do not fit each other.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # diffusers and torch raise many types
            raise UserError(
                f"cannot build a model from the configurations of {self.name} ({one_line(error)}): "
                "fetch them again from its source"
            ) from error


def find(profile: str | None, backbone: Path | None) -> Architecture:
    """The architecture selected by `--profile` and `--backbone`; see `options`.

    Raises:
        UserError: the profile or the folder does not exist.
    """
    if backbone is not None:
        if not backbone.is_dir():
            raise UserError(f"no folder {str(backbone)!r}: --backbone takes diffusers layout")
        return Architecture(str(backbone), backbone, str(backbone / "{part}" / "config.json"))
    if profile and (PACKAGED / f"{profile}_unet.json").is_file():
        return Architecture(profile, BACKBONE, str(PACKAGED / f"{profile}_{{part}}.json"))
    if profile:
        check_profile(profile)
    return Architecture(
        profile or str(BACKBONE), BACKBONE, str(BACKBONE / "{part}" / "config.json")
    )


def image_encoder(
    architecture: Architecture, params: Path, name: str | None = None
) -> dict[str, Any]:
    """open_clip's configuration of an image encoder.

    Args:
        architecture: the backbone, which may hold it.
        params: a params file.
        name: of the encoder; None: `encode.image_encoder` of `params`.

    Raises:
        UserError: open_clip knows no such model.
    """
    from adapterbench.frozen.load import clip_config, clip_name  # slow import

    name = name or load_params(EncodeParams, "encode", params).image_encoder
    return clip_config(clip_name(name, architecture.folder))


def patch_shape(clip: Mapping[str, Any]) -> tuple[int, int] | None:
    """Shape `(S, p)` of an image's patch features, class token included.

    Args:
        clip: open_clip's configuration.

    Returns:
        None if the image encoder is no plain vision transformer.
    """
    from open_clip import CLIPVisionCfg  # slow import

    known = {field.name for field in fields(CLIPVisionCfg)}
    vision = CLIPVisionCfg(**{k: v for k, v in clip["vision_cfg"].items() if k in known})
    if vision.timm_model_name or not isinstance(vision.layers, int):
        return None
    height, width = np.broadcast_to(vision.image_size, 2) // np.broadcast_to(vision.patch_size, 2)
    return int(1 + height * width), vision.width


@dataclass(frozen=True)
class Shapes:
    """Shapes of one sample's inputs to the UNet."""

    latents: tuple[int, int, int]
    """`(C, h, w)`"""
    text: tuple[int, int]
    """`(L, D)`"""
    image: int
    """Width c of the image embedding."""
    patches: tuple[int, int] | None
    """`(S, p)` of the patch features; None: the image encoder has none."""
    text_encoders: int
    """Number E of text encoders; each has token ids of its own."""


def shapes(architecture: Architecture, params: Path) -> Shapes:
    """The shapes of a sample at the resolution in a params file.

    Raises:
        UserError: a configuration or a section is missing.
    """
    vae = architecture.read(Vae, "vae")
    clip = image_encoder(architecture, params)
    texts = [architecture.read(TextEncoder, part) for part in architecture.text_encoders]
    resolution = load_params(DataParams, "data", params).resolution
    # every block of the VAE but the last halves the side
    side = resolution // 2 ** (len(vae.block_out_channels) - 1)
    return Shapes(
        latents=(vae.latent_channels, side, side),
        # embeddings of two encoders stand side by side
        text=(texts[0].max_position_embeddings, sum(text.hidden_size for text in texts)),
        image=clip["embed_dim"],
        patches=patch_shape(clip),
        text_encoders=len(texts),
    )
