"""The image prompts of the sampled items."""

from pathlib import Path

import torch
from more_itertools import chunked
from torch import Tensor

from adapterbench.adapters.storage import AdapterConfig
from adapterbench.backbone.load import load_clip
from adapterbench.backbone.prompts import image_prompts
from adapterbench.data.encoded import EncodedSplit
from adapterbench.data.shards import read_split
from adapterbench.errors import UserError


def item_prompts(
    data: EncodedSplit,
    numbers: list[int],
    adapter: AdapterConfig,
    patches: bool,
    shards: Path | None,
    batch_size: int,
) -> tuple[dict[int, Tensor], Tensor]:
    """Image prompts `(c,)` or `(S, c)` by number of the item, and what stands for none `(1, ..)`.

    They come from stage `encode`; for an adapter with an image encoder of its own, such as one
    that was trained elsewhere, that encoder reads the items' pictures in `shards`.

    Raises:
        UserError: the encoder cannot be loaded, or there are no `shards` for it.
    """
    if adapter.image_encoder is None:
        embeds = {number: data.row(number)[1].float() for number in numbers}
        return embeds, torch.zeros(1, data.embed_dim)
    if shards is None:
        raise UserError(
            f"the adapter reads pictures through {adapter.image_encoder}: name the folder of "
            "stage prepare with --shards"
        )
    clip = load_clip(adapter.image_encoder, adapter.pretrained)
    number_of = {data.samples[number]["key"]: number for number in numbers}
    # a bad picture was not encoded, so it is no item
    wanted = [s for s in read_split(shards, "validation", on_bad=[]) if s.key in number_of]
    prompts: dict[int, Tensor] = {}
    for part in chunked(wanted, batch_size):
        found, nothing = image_prompts(clip, [sample.image for sample in part], patches)
        prompts |= {number_of[s.key]: prompt for s, prompt in zip(part, found, strict=True)}
    return prompts, nothing
