"""Encoded shards: what the frozen encoders made of a webdataset shard, read at random.

`<split>-00000.safetensors` stands for `<split>-00000.tar` and holds, for N pictures, `latents
(N, C, h, w)` (scaled), `image_embeds (N, c)`, `texts (T, L, D)`, the distinct captions of the
shard, and `phrasings (N, P)`, the row of `texts` of each phrasing; all floats are fp16.
`<split>-00000.json` beside it lists keys, concepts and captions. `common.safetensors` holds
`empty (L, D)`, the embedding of the empty caption. `manifest.json` lists the shards of each split
with their numbers of samples and digests, so it stays small however many pictures there are.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapterbench.errors import UserError
from adapterbench.files import MANIFEST, read_json

COMMON = "common.safetensors"


@dataclass(frozen=True)
class Batch:
    """Samples gathered by number, fp32."""

    latents: Tensor
    """`(B, C, h, w)`"""
    image_embeds: Tensor
    """`(B, c)`"""
    texts: Tensor
    """A phrasing of each caption, embedded `(B, L, D)`."""

    def to(self, device: torch.device) -> "Batch":
        """The same samples on `device`."""
        return Batch(self.latents.to(device), self.image_embeds.to(device), self.texts.to(device))


class EncodedSplit:
    """Random access to an encoded split; shards are memory-mapped, never read as a whole."""

    def __init__(self, folder: Path, split: str) -> None:
        """Open the shards of `split`.

        Raises:
            UserError: a shard is missing or damaged.
        """
        manifest = read_json(folder / MANIFEST)
        self.embed_dim: int = manifest["embed_dim"]
        shards: list[dict[str, Any]] = manifest["splits"][split]
        self.starts = [0, *accumulate(shard["samples"] for shard in shards)]
        self.indices = [folder / shard["index"] for shard in shards]
        self.shards = [open_shard(folder / shard["name"]) for shard in shards]
        self.empty: Tensor = open_shard(folder / COMMON).get_tensor("empty").float()
        """Embedding of the empty caption `(L, D)`."""

    def __len__(self) -> int:
        return self.starts[-1]

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Of each sample `key`, `concept`, `caption`; training never asks and never reads them."""
        return [row for path in self.indices for row in read_json(path)["samples"]]

    def gather(self, index: Tensor, draw: Tensor) -> Batch:
        """Samples `index (B,)`, each with the phrasing that `draw (B,)` in [0, 1) picks."""
        rows = [self.row(i, u) for i, u in zip(index.tolist(), draw.tolist(), strict=True)]
        # floats first: under bf16, torch stacks no fp16 on a CPU
        latents, image_embeds, texts = (
            torch.stack([tensor.float() for tensor in part]) for part in zip(*rows, strict=True)
        )
        return Batch(latents, image_embeds, texts)

    def row(self, number: int, draw: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, image embedding and one embedded phrasing of a sample, fp16."""
        place = bisect_right(self.starts, number) - 1
        shard, at = self.shards[place], number - self.starts[place]
        phrasings = shard.get_slice("phrasings")[at]
        text = int(phrasings[int(draw * len(phrasings))])
        latents, embeds = (shard.get_slice(name)[at] for name in ("latents", "image_embeds"))
        return latents, embeds, shard.get_slice("texts")[text]


def open_shard(path: Path) -> safe_open:
    """Map a safetensors file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"encoded shard {path} is missing or damaged ({error}): "
            "delete it and run `dvc checkout` or `dvc repro encode`"
        ) from error
