"""A backbone without its weights: the configurations of its parts, and the shapes they imply."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from adapterbench.cli.paths import BACKBONE
from adapterbench.cli.settings import check_profile, profiles
from adapterbench.core.config import Count, DataParams, EncodeParams, Width, load_params
from adapterbench.core.documents import Document, read_document
from adapterbench.core.errors import UserError, one_line

PACKAGED = Path(str(files("adapterbench.backbone") / "configs"))
"""Folder of `<profile>_<part>.json`, for backbones that are known before they are fetched."""


T = TypeVar("T")


class Vae(Document):
    """What the configuration of a VAE says of latents."""

    block_out_channels: Annotated[list[Width], Field(min_length=1, max_length=8)]
    latent_channels: Width


class TextEncoder(Document):
    """What the configuration of a text encoder says of embeddings."""

    max_position_embeddings: Count
    hidden_size: Width


@dataclass(frozen=True)
class Architecture:
    """The configurations of a Stable Diffusion."""

    name: str
    """As the user knows it."""
    folder: Path
    """Where it lies, or will lie when it is brought."""
    pattern: str
    """Path of a configuration; `{part}` stands for `unet`, `vae` or `text_encoder`."""

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a part.

        Raises:
            UserError: there is no such file, or it is not a JSON object.
        """
        return self.read(dict[str, Any], part)

    def read(self, kind: type[T], part: str) -> T:
        """The configuration of a part as `kind`.

        Raises:
            UserError: there is no such file, or it has another structure.
        """
        path = Path(self.pattern.format(part=part))
        if not path.is_file():
            raise UserError(
                f"{path} is missing: bring the model (stage backbone), or choose one of "
                f"{', '.join(profiles())} with --profile or a folder with --backbone"
            )
        remedy = "take it from where the model came from again"
        return read_document(kind, path, f"the configuration of a {part}", remedy)

    @contextmanager
    def builds(self) -> Iterator[None]:
        """Tell what is raised where the parts are built that the configurations describe.

        Raises:
            UserError: they have values that none can be built of, or do not go together.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # diffusers and torch raise many kinds
            raise UserError(
                f"no model can be built as {self.name} has it ({one_line(error)}): take its "
                "configurations from where it came from again"
            ) from error


def find(profile: str | None, backbone: Path | None) -> Architecture:
    """The architecture that the two options name; see `options`.

    Raises:
        UserError: there is no such profile or no such folder.
    """
    if backbone is not None:
        if not backbone.is_dir():
            raise UserError(f"no folder {str(backbone)!r}: --backbone wants diffusers' layout")
        return Architecture(str(backbone), backbone, str(backbone / "{part}" / "config.json"))
    if profile and (PACKAGED / f"{profile}_unet.json").is_file():
        return Architecture(profile, BACKBONE, str(PACKAGED / f"{profile}_{{part}}.json"))
    if profile:
        check_profile(profile)
    return Architecture(
        profile or str(BACKBONE), BACKBONE, str(BACKBONE / "{part}" / "config.json")
    )


def image_width(architecture: Architecture, params: Path) -> int:
    """Width c of an image embedding, by `encode.image_encoder` of a params file.

    Raises:
        UserError: open_clip knows no such model.
    """
    from adapterbench.frozen.load import clip_config, clip_name  # seconds to import

    name = load_params(EncodeParams, "encode", params).image_encoder
    width: int = clip_config(clip_name(name, architecture.folder))["embed_dim"]
    return width


@dataclass(frozen=True)
class Shapes:
    """What one sample is to the UNet."""

    latents: tuple[int, int, int]
    """`(C, h, w)`"""
    text: tuple[int, int]
    """`(L, D)`"""
    image: int
    """Width c of the image embedding."""


def shapes(architecture: Architecture, params: Path) -> Shapes:
    """The shapes of a sample at the resolution of a params file.

    Raises:
        UserError: a configuration or a section is missing.
    """
    vae = architecture.read(Vae, "vae")
    text = architecture.read(TextEncoder, "text_encoder")
    resolution = load_params(DataParams, "data", params).resolution
    # every block of the VAE but the last halves the picture's side
    side = resolution // 2 ** (len(vae.block_out_channels) - 1)
    return Shapes(
        latents=(vae.latent_channels, side, side),
        text=(text.max_position_embeddings, text.hidden_size),
        image=image_width(architecture, params),
    )
