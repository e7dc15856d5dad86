"""Image prompts of items, by their index in the split, and the unconditional embedding."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from more_itertools import chunked
from torch import Tensor

from adapterbench.adapters.core.storage import load_config, load_variant
from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import ImageEncoderParams
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import load_clip
from adapterbench.frozen.prompts import image_prompts
from adapterbench.runs.processes import process_state

Embeds = tuple[Float[Tensor, " items *features"], Float[Tensor, " 1 *features"]]
"""Image prompts `(N, c)` or `(N, S, c)` of N items, and the unconditional one `(1, ..)`."""

Prompts = Callable[[list[int]], Embeds]
"""Indices of N items -> their prompts."""


def encoded_prompts(data: EncodedSplit) -> Prompts:
    """The image prompts that stage `encode` stored."""

    def prompts(numbers: list[int]) -> Embeds:
        embeds = torch.stack([data.row(number)[1].float() for number in numbers])
        return embeds, data.unconditional[None]

    return prompts


def check_row(adapter: Path, variant: Variant) -> None:
    """Check that an adapter is the variant that its row describes.

    Args:
        adapter: folder of the trained adapter.
        variant: the parsed row of `variants:`.

    Raises:
        UserError: the adapter is another variant or was trained with another image encoder.
    """
    config, encoder = load_config(adapter), variant.encoder
    if (stored := load_variant(adapter).row()) != variant.row():
        raise UserError(
            f"{adapter} holds {stored}, but its row of `variants:` says {variant.row()}: train the "
            "variant again, or correct the row"
        )
    trained_with = ImageEncoderParams(
        image_encoder=config.image_encoder, pretrained=config.pretrained
    )
    row = f"the row {adapter.name} of `variants:`"
    if trained_with != encoder:
        raise UserError(
            f"{adapter} says that it was trained with {trained_with}, but {row} has {encoder}: "
            "if you trust the adapter, set image_encoder and pretrained of the row to its values"
        )


class OwnPrompts:
    """Image prompts by an adapter's own image encoder; each image is encoded once and cached."""

    def __init__(
        self,
        data: EncodedSplit,
        variant: Variant,
        shards: Path | None,
        batch_size: int,
        split: str,
    ) -> None:
        """Load the encoder.

        Args:
            variant: the adapter's variant, which names the encoder.
            shards: folder of stage `prepare`.
            batch_size: images per forward pass.
            split: whose images are read.

        Raises:
            UserError: `shards` is None, or the encoder cannot be loaded.
        """
        name = str(variant.image_encoder)
        if shards is None:
            raise UserError(
                f"the adapter has its own image encoder, {name}: give the folder of stage prepare "
                "with --shards"
            )
        self.data, self.shards, self.split = data, shards, split
        self.patches, self.batch_size = variant.reads_patches, batch_size
        self.clip = load_clip(name, variant.pretrained).to(process_state().device)
        self.prompts: dict[str, Tensor] = {}
        self.unconditional = torch.empty(0)

    def __call__(self, numbers: list[int]) -> Embeds:
        """See `Prompts`."""
        keys = [self.data.samples[number]["key"] for number in numbers]
        if missing := set(keys) - self.prompts.keys():
            self.read(missing)
        return torch.stack([self.prompts[key] for key in keys]), self.unconditional

    def read(self, keys: set[str]) -> None:
        """Encode the images of `keys` and cache their prompts."""
        wanted = read_split(self.shards, self.split, keys=keys)
        for part in chunked(wanted, self.batch_size):
            images = [sample.image for sample in part]
            prompts, self.unconditional = image_prompts(self.clip, images, self.patches)
            self.prompts |= {s.key: prompt for s, prompt in zip(part, prompts, strict=True)}
