"""Encoded shards: what the frozen encoders made of webdataset shards, read at random.

`<split>-00000.safetensors` stands for `<split>-00000.tar` and holds, for N pictures, `latents
(N, C, h, w)` (scaled) and `image_embeds (N, c)`; `<split>-00000.json` beside it lists keys,
concepts and captions. `texts-00000.safetensors` and so on hold `texts`, each distinct caption of
all splits once: embeddings `(T, L, D)` or, where they are computed live, token ids `(T, L)`.
`common.safetensors` holds `empty`, the same of the empty caption, and by the name of each split its
phrasings `(N, P)`: the number, over all `texts`, of each phrasing of each sample. All floats are
fp16. `manifest.json` lists the files with digests and numbers of samples, so it stays small however
many pictures there are. No file is read that has another digest.
"""

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapterbench.core.config import Count
from adapterbench.core.documents import Document, FileName, Sha256, read_document
from adapterbench.core.errors import InputError, one_line
from adapterbench.core.files import MANIFEST, check_digest, publish

COMMON = "common.safetensors"
AT_ONCE = 4
"""Files that are compared with their digests at the same time."""


class File(Document):
    """A file of tensors."""

    name: FileName
    sha256: Sha256


class EncodedShard(File):
    """The file of a shard, and the one that names its samples."""

    samples: Count
    index: FileName
    index_sha256: Sha256


class Manifest(Document):
    """What `manifest.json` holds."""

    embed_dim: Count
    splits: dict[str, list[EncodedShard]]
    texts: Annotated[list[File], Field(min_length=1)]
    common: File


class Row(Document):
    """A sample of an index."""

    key: str
    concept: str
    captions: Annotated[list[str], Field(min_length=1)]


class Index(Document):
    """What `<split>-00000.json` holds."""

    name: FileName
    sha256: Sha256
    samples: list[Row]
    skipped: list[dict[str, str]]


@dataclass(frozen=True)
class Batch:
    """Samples gathered by number; floats are fp32."""

    latents: Tensor
    """`(B, C, h, w)`"""
    image_embeds: Tensor
    """`(B, c)`"""
    texts: Tensor
    """A phrasing of each caption: embeddings `(B, L, D)` or token ids `(B, L)`."""


class EncodedSplit:
    """Random access to an encoded split; shards are memory-mapped, never held as a whole."""

    def __init__(self, folder: Path, split: str) -> None:
        """Open the shards of `split`, and compare them with their digests.

        Raises:
            UserError: one is missing or damaged, or the manifest has no such split.
        """
        manifest = read_document(Manifest, folder / MANIFEST, "a manifest of encoded shards")
        if split not in manifest.splits:
            known = ", ".join(manifest.splits)
            raise InputError(f"{folder} has no split {split!r} (it has {known})", folder)
        shards = manifest.splits[split]
        self.embed_dim = manifest.embed_dim
        self.starts = [0, *accumulate(shard.samples for shard in shards)]
        self.indices = [(folder / shard.index, shard.index_sha256) for shard in shards]
        self.shards = [Tensors(folder, shard) for shard in shards]
        self.texts = [Tensors(folder, file) for file in manifest.texts]
        common = Tensors(folder, manifest.common)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(attrgetter("whole"), [*self.shards, common]))
        self.texts_per_file = self.texts[0].rows("texts")
        self.phrasings: Tensor = common.whole.get_tensor(split)
        """The number of each phrasing of each sample `(N, P)`."""
        self.empty: Tensor = widened(common.whole.get_tensor("empty"))
        """Embedding of the empty caption `(L, D)`, or its token ids `(L,)`."""

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def live(self) -> bool:
        """Whether texts are token ids, to be embedded when they are needed."""
        return not self.empty.is_floating_point()

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Of each sample `key`, `concept`, `captions`; training never asks and never reads them."""
        indices = [read_index(path, digest) for path, digest in self.indices]
        return [row.model_dump() for index in indices for row in index.samples]

    def gather(self, index: Tensor, draw: Tensor) -> Batch:
        """Samples `index (B,)`, each with the phrasing that `draw (B,)` in [0, 1) picks."""
        rows = [self.row(i, u) for i, u in zip(index.tolist(), draw.tolist(), strict=True)]
        # floats first: under bf16, torch stacks no fp16 on a CPU
        latents, image_embeds, texts = (
            torch.stack([widened(tensor) for tensor in part]) for part in zip(*rows, strict=True)
        )
        return Batch(latents, image_embeds, texts)

    def row(self, number: int, draw: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, image embedding and one phrasing of a sample, as they are kept."""
        place = bisect_right(self.starts, number) - 1
        shard, at = self.shards[place], number - self.starts[place]
        latents, embeds = (shard[name][at] for name in ("latents", "image_embeds"))
        phrasings = self.phrasings[number]
        # all files but the last hold as many
        file, row = divmod(int(phrasings[int(draw * len(phrasings))]), self.texts_per_file)
        return latents, embeds, self.texts[file]["texts"][row]


def widened(tensor: Tensor) -> Tensor:
    """Floats as fp32, token ids as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


class Tensors:
    """A mapped file of tensors."""

    def __init__(self, folder: Path, file: File) -> None:
        """Map it; its numbers are not read yet.

        Raises:
            UserError: it is missing or damaged.
        """
        self.path, self.sha256 = folder / file.name, file.sha256
        with intact(self.path):
            self.file = safe_open(self.path, framework="pt")
        self.mapped: dict[str, Tensor] = {}

    @cached_property
    def whole(self) -> safe_open:
        """The file, compared with its digest when this is first asked for.

        Raises:
            UserError: it is damaged.
        """
        with intact(self.path):
            check_digest(self.path, self.sha256)
        return self.file

    def __getitem__(self, name: str) -> Tensor:
        """A tensor of the file, mapped: what of it is used is read, and stays the system's cache.

        Raises:
            UserError: the file is damaged.
        """
        if name not in self.mapped:
            self.mapped[name] = self.whole.get_tensor(name)
        return self.mapped[name]

    def rows(self, name: str) -> int:
        """Rows of a tensor.

        Raises:
            UserError: there is no such tensor.
        """
        with intact(self.path):
            return int(self.file.get_slice(name).get_shape()[0])


def read_index(path: Path, digest: str | None = None) -> Index:
    """Read the index of a shard, and compare it with its digest where that is known.

    Raises:
        UserError: it is missing or damaged.
    """
    index = read_document(Index, path, "the index of an encoded shard")
    if digest:
        with intact(path):
            check_digest(path, digest)
    return index


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Say how to mend a file whose reading fails in the block."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        cause = f"encoded shard {path} is missing or damaged ({one_line(error)})"
        raise InputError(cause, path) from error


def save_half(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, floats as fp16."""
    with publish(path) as beside:
        half = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        save_file({name: tensor.contiguous() for name, tensor in half.items()}, beside)
