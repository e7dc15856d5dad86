"""Variants: parsed rows of `variants:`, which name the modules of their two parts.

A row is flat data such as `{projection: linear, attention: lora, tokens: 4, rank: 32}`; a field
belongs to the part whose `Params` declare it.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import create_model

from adapterbench.core import registry
from adapterbench.core.config import PARAMS, ImageEncoderParams, Section, Width, load_row, parse
from adapterbench.core.errors import UserError, short_repr

KINDS = {
    "projection": "adapterbench.adapters.projections",
    "attention": "adapterbench.adapters.attention",
}
"""The two parts of a variant, and the package with their modules."""


class ReadsEmbedding(Section):
    """Fields of a projection that reads the pooled embedding of an image, `(B, c)`."""

    tokens: Width
    """Image tokens K."""


class ReadsPatches(Section):
    """Fields of a projection that reads the features of an image's S patches, `(B, S, c)`."""

    tokens: Width
    """Image tokens K."""
    patch_width: Width
    """Channels c of a patch in the last hidden layer but one of the image encoder."""


class Variant(ImageEncoderParams):
    """Fields of every row; `parse_variant` returns a subclass with the fields of both parts."""

    projection: str
    """Module of `adapterbench.adapters.projections`."""
    attention: str
    """Module of `adapterbench.adapters.attention`."""
    layers: tuple[str, ...] | None = None
    """Which cross-attention layers have a branch: those with one of these in their path in the
    UNet, such as `mid_block`; all when left out."""
    train: dict[str, Any] | None = None
    """Overrides of the `train` section; `load_train` checks them."""

    @property
    def encoder(self) -> ImageEncoderParams:
        """The image encoder that the row names, if any."""
        return ImageEncoderParams(image_encoder=self.image_encoder, pretrained=self.pretrained)

    @property
    def reads_patches(self) -> bool:
        """Whether the projection reads patches; else it reads the pooled embedding."""
        return isinstance(self, ReadsPatches)

    @property
    def reads_stored_patches(self) -> bool:
        """Whether it reads the patches that stage `encode` stores."""
        return self.reads_patches and self.image_encoder is None

    def as_given(self) -> dict[str, Any]:
        """The row as given, without defaults."""
        return self.model_dump(exclude_unset=True)

    def row(self) -> dict[str, Any]:
        """The fields of the row that build the adapter."""
        return self.model_dump(
            exclude_none=True, exclude={"train", *ImageEncoderParams.model_fields}
        )


def parse_variant(row: Any, name: str = "variant") -> Variant:
    """Check a row.

    Args:
        row: flat data.
        name: its name in errors, such as `variants.ip_adapter`.

    Raises:
        UserError: a part does not exist, or fields are missing, unknown or of a wrong type; one
            line that names each.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{PARAMS}: {name} must be a mapping of fields, not {short_repr(row)}")
    return parse(variant_class(*(part(kind, row, name) for kind in KINDS)), dict(row), name)


@cache
def variant_class(*parts: ModuleType) -> type[Variant]:
    """The class of variants with these parts; cached."""
    # pydantic puts the fields of the last base first
    return create_model("Variant", __base__=(*(part.Params for part in reversed(parts)), Variant))


def modules(variant: Variant) -> list[ModuleType]:
    """The modules of the two parts, in the order of `KINDS`."""
    return [registry.load(package, getattr(variant, kind)) for kind, package in KINDS.items()]


def part(kind: str, row: Mapping[str, Any], name: str) -> ModuleType:
    """The module that a row names as its `kind`.

    Raises:
        UserError: it is missing or does not exist.
    """
    package = KINDS[kind]
    if kind not in row:
        known = ", ".join(registry.keys(package))
        raise UserError(f"{PARAMS}: {name}.{kind} is missing (there are {known})")
    try:
        return registry.load(package, row[kind])
    except UserError as error:
        raise UserError(f"{PARAMS}: {name}.{kind}: {error}") from error


def load_variant(name: str, path: Path = PARAMS) -> Variant:
    """Load one row of `variants:`.

    Raises:
        UserError: there is no such row (see `load_row`), or see `parse_variant`.
    """
    return parse_variant(load_row(name, path), f"variants.{name}")
