"""Encoded shards: the output of the frozen encoders, with random access.

`<split>-00000.safetensors` encodes `<split>-00000.tar` and holds, for N images, `latents
(N, C, h, w)` (scaled), `image_embeds (N, c)` and, with `encode.patches`, `patches (N, S, p)`, the
features of S patches; `<split>-00000.json` beside it lists keys, concepts and captions.
`texts-00000.safetensors` and so on hold `texts`, each distinct caption of all splits once:
embeddings `(T, L, D)` or, where they are computed live, token ids `(T, L)`, those of two text
encoders one after the other. `common.safetensors` holds `empty`, the same for the empty caption, by
the name of each split its phrasings `(N, P)`: the index into all `texts` of each phrasing of each
sample, and, with `encode.patches`, `zero_patches (S, p)`, the patches of a zero image. All floats
are fp16. `manifest.json` lists the files with digests and numbers of samples; its size does not
depend on the number of images. A file with another digest is never read.
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
from adapterbench.core.errors import InputError, UserError, one_line
from adapterbench.core.files import MANIFEST, check_digest, publish

COMMON = "common.safetensors"
EMBEDS, PATCHES, ZERO_PATCHES = "image_embeds", "patches", "zero_patches"
"""Tensors of the two kinds of image prompts, and of the unconditional patches."""
AT_ONCE = 4
"""Files whose digests are checked at the same time."""


class File(Document):
    """A file of tensors."""

    name: FileName
    sha256: Sha256


class EncodedShard(File):
    """The files of a shard: tensors, and the index with keys and captions."""

    samples: Count
    index: FileName
    index_sha256: Sha256


class Manifest(Document):
    """Content of `manifest.json`."""

    embed_dim: Count
    splits: dict[str, list[EncodedShard]]
    texts: Annotated[list[File], Field(min_length=1)]
    common: File


class Row(Document):
    """A sample in an index."""

    key: str
    concept: str
    captions: Annotated[list[str], Field(min_length=1)]


class Index(Document):
    """Content of `<split>-00000.json`."""

    name: FileName
    sha256: Sha256
    samples: list[Row]
    skipped: list[dict[str, str]]


@dataclass(frozen=True)
class Batch:
    """Samples gathered by index; floats are fp32."""

    latents: Tensor
    """`(B, C, h, w)`"""
    image_embeds: Tensor
    """Image prompts: embeddings `(B, c)` or patches `(B, S, p)`."""
    texts: Tensor
    """One phrasing per caption: embeddings `(B, L, D)` or token ids `(B, L)`."""


class EncodedSplit:
    """Random access to an encoded split; shards are memory-mapped."""

    def __init__(self, folder: Path, split: str, patches: bool = False) -> None:
        """Open the shards of `split` and check their digests.

        Args:
            folder: of stage `encode`.
            split: one of its manifest.
            patches: whether patches are the image prompts, rather than embeddings.

        Raises:
            UserError: a file is missing or damaged, the manifest has no such split, or patches are
                not stored.
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
            list(pool.map(attrgetter("checked"), [*self.shards, common]))
        self.texts_per_file = self.texts[0].rows("texts")
        if patches and ZERO_PATCHES not in set(common.checked.keys()):
            raise UserError(
                f"{folder} holds no patch features: set encode.patches = true in params.yaml and "
                "run stage encode again"
            )
        self.prompt = PATCHES if patches else EMBEDS
        zero = common.checked.get_tensor(ZERO_PATCHES) if patches else torch.zeros(self.embed_dim)
        self.unconditional: Tensor = to_fp32(zero)
        """The unconditional image prompt: zeros `(c,)`, or the patches of a zero image `(S, p)`, as
        in the training of IP-Adapter and IP-Adapter Plus."""
        self.phrasings: Tensor = common.checked.get_tensor(split)
        """Index into all texts of each phrasing of each sample `(N, P)`."""
        self.empty: Tensor = to_fp32(common.checked.get_tensor("empty"))
        """Embedding of the empty caption `(L, D)`, or its token ids `(L,)`."""

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def live(self) -> bool:
        """Whether texts are stored as token ids, which are embedded when needed."""
        return not self.empty.is_floating_point()

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """`key`, `concept` and `captions` of each sample; read on first use."""
        indices = [read_index(path, digest) for path, digest in self.indices]
        return [row.model_dump() for index in indices for row in index.samples]

    def gather(self, index: Tensor, draw: Tensor) -> Batch:
        """Samples `index (B,)`, each with the phrasing chosen by `draw (B,)` in [0, 1)."""
        rows = [self.row(i, u) for i, u in zip(index.tolist(), draw.tolist(), strict=True)]
        # convert first: under bf16 autocast, torch cannot stack fp16 on a CPU
        latents, image_embeds, texts = (
            torch.stack([to_fp32(tensor) for tensor in part]) for part in zip(*rows, strict=True)
        )
        return Batch(latents, image_embeds, texts)

    def row(self, number: int, draw: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, image prompt and one phrasing of a sample, in the stored dtype."""
        place = bisect_right(self.starts, number) - 1
        shard, at = self.shards[place], number - self.starts[place]
        latents, embeds = (shard[name][at] for name in ("latents", self.prompt))
        phrasings = self.phrasings[number]
        # all files but the last have the same number of texts
        file, row = divmod(int(phrasings[int(draw * len(phrasings))]), self.texts_per_file)
        return latents, embeds, self.texts[file]["texts"][row]


def to_fp32(tensor: Tensor) -> Tensor:
    """Convert floats to fp32; token ids stay as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


class Tensors:
    """A memory-mapped file of tensors."""

    def __init__(self, folder: Path, file: File) -> None:
        """Map the file; its tensors are not read yet.

        Raises:
            UserError: it is missing or damaged.
        """
        self.path, self.sha256 = folder / file.name, file.sha256
        with input_errors(self.path):
            self.file = safe_open(self.path, framework="pt")
        self.mapped: dict[str, Tensor] = {}

    @cached_property
    def checked(self) -> safe_open:
        """The file, whose digest is checked on first use.

        Raises:
            UserError: it is damaged.
        """
        with input_errors(self.path):
            check_digest(self.path, self.sha256)
        return self.file

    def __getitem__(self, name: str) -> Tensor:
        """A tensor of the file; its pages are read when used.

        Raises:
            UserError: the file is damaged.
        """
        if name not in self.mapped:
            self.mapped[name] = self.checked.get_tensor(name)
        return self.mapped[name]

    def rows(self, name: str) -> int:
        """Number of rows of a tensor.

        Raises:
            UserError: there is no such tensor.
        """
        with input_errors(self.path):
            return int(self.file.get_slice(name).get_shape()[0])


def read_index(path: Path, digest: str | None = None) -> Index:
    """Read the index of a shard and check its digest, if given.

    Raises:
        UserError: it is missing or damaged.
    """
    index = read_document(Index, path, "the index of an encoded shard")
    if digest:
        with input_errors(path):
            check_digest(path, digest)
    return index


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Raise an `InputError` for `path` if reading it fails in the block."""
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
