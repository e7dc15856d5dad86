"""Encoded shards: what the frozen encoders made of webdataset shards, read at random.

`<split>-00000.safetensors` stands for `<split>-00000.tar` and holds, for N pictures, `latents
(N, C, h, w)` (scaled) and `image_embeds (N, c)`; `<split>-00000.json` beside it lists keys,
concepts and captions. `texts-00000.safetensors` and so on hold `texts (T, L, D)`, each distinct
caption of all splits once. `common.safetensors` holds `empty (L, D)`, the embedding of the empty
caption, and by the name of each split its phrasings `(N, P)`: the number, over all `texts`, of
each phrasing of each sample. All floats are fp16. `manifest.json` lists the files with digests
and numbers of samples, so it stays small however many pictures there are.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, publish, read_json

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
        self.texts = [open_shard(folder / file["name"]) for file in manifest["texts"]]
        self.texts_per_file = self.texts[0].get_slice("texts").get_shape()[0]
        common = open_shard(folder / COMMON)
        self.phrasings: Tensor = common.get_tensor(split)
        """The number of each phrasing of each sample `(N, P)`."""
        self.empty: Tensor = common.get_tensor("empty").float()
        """Embedding of the empty caption `(L, D)`."""

    def __len__(self) -> int:
        return self.starts[-1]

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Of each sample `key`, `concept`, `captions`; training never asks and never reads them."""
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
        latents, embeds = (shard.get_slice(name)[at] for name in ("latents", "image_embeds"))
        phrasings = self.phrasings[number]
        # all files but the last hold as many
        file, row = divmod(int(phrasings[int(draw * len(phrasings))]), self.texts_per_file)
        return latents, embeds, self.texts[file].get_slice("texts")[row]


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


def save_half(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, floats as fp16."""
    with publish(path) as beside:
        half = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        save_file({name: tensor.contiguous() for name, tensor in half.items()}, beside)
