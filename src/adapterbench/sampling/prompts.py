"""The image prompts of items, by number in their split, and the unconditional one."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from more_itertools import chunked
from torch import Tensor

from adapterbench.adapters.core.storage import load_config, load_variant
from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import OwnEncoder
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import load_clip
from adapterbench.frozen.prompts import image_prompts, unconditional_embeds
from adapterbench.runs.processes import processes

Embeds = tuple[Float[Tensor, " items *features"], Float[Tensor, " 1 *features"]]
"""Prompts `(N, c)` or `(N, S, c)` of N items, and the unconditional one `(1, ..)`."""

Prompts = Callable[[list[int]], Embeds]
"""Numbers of N items -> their prompts."""


def encoded_prompts(data: EncodedSplit) -> Prompts:
    """The embeddings that stage `encode` made."""

    def prompts(numbers: list[int]) -> Embeds:
        embeds = torch.stack([data.row(number)[1] for number in numbers]).float()
        return embeds, unconditional_embeds(embeds[:1])

    return prompts


def check_row(adapter: Path, variant: Variant) -> None:
    """Refuse an adapter that is not what its row says.

    Args:
        adapter: its folder.
        variant: its row.

    Raises:
        UserError: it is another variant or was trained with another image encoder, or the row names
            no encoder where it must: stage `encode` keeps no patches.
    """
    config, encoder = load_config(adapter), variant.encoder
    if (built := load_variant(adapter).row()) != variant.row():
        raise UserError(
            f"{adapter} is {built}, but its row of `variants:` is {variant.row()}: train it, "
            "or give the adapter that is"
        )
    trained = OwnEncoder(image_encoder=config.image_encoder, pretrained=config.pretrained)
    row = f"the row {adapter.name} of `variants:`"
    if trained != encoder:
        raise UserError(
            f"{adapter} says that it was trained with {trained}, but {row} has {encoder}: "
            "where you trust the former, set image_encoder and pretrained of the row to it"
        )
    if variant.reads_patches and encoder.image_encoder is None:
        raise UserError(
            f"{adapter} reads patches, which stage encode does not keep: let {row} name the "
            "image_encoder that it was trained with"
        )


class OwnPrompts:
    """What an adapter's own image encoder makes of the items' pictures, each read once."""

    def __init__(
        self,
        data: EncodedSplit,
        variant: Variant,
        shards: Path | None,
        batch_size: int,
    ) -> None:
        """Load the encoder.

        Args:
            variant: of the adapter; its row names the encoder.
            shards: folder of stage `prepare`.
            batch_size: pictures a forward pass.

        Raises:
            UserError: there are no `shards`, or the encoder cannot be loaded.
        """
        name = str(variant.image_encoder)
        if shards is None:
            raise UserError(
                f"the adapter reads pictures through {name}: name the folder of stage prepare "
                "with --shards"
            )
        self.data, self.shards = data, shards
        self.patches, self.batch_size = variant.reads_patches, batch_size
        self.clip = load_clip(name, variant.pretrained).to(processes().device)
        self.found: dict[str, Tensor] = {}
        self.unconditional = torch.empty(0)

    def __call__(self, numbers: list[int]) -> Embeds:
        """See `Prompts`."""
        keys = [self.data.samples[number]["key"] for number in numbers]
        if not self.found.keys() >= set(keys):
            self.read(set(keys) - self.found.keys())
        return torch.stack([self.found[key] for key in keys]), self.unconditional

    def read(self, keys: set[str]) -> None:
        """Encode the pictures of some keys; stage `encode` has read them all."""
        wanted = read_split(self.shards, "validation", keys=keys)
        for part in chunked(wanted, self.batch_size):
            images = [sample.image for sample in part]
            found, self.unconditional = image_prompts(self.clip, images, self.patches)
            self.found |= {s.key: prompt for s, prompt in zip(part, found, strict=True)}
