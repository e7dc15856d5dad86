"""What all illustrations share: texts as the base model reads them, images, and their tars."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import webdataset as wds
from PIL import Image
from torch import Tensor

from adapterbench.sampling.sampler import Picture, Sampler


def embedded(texts: Sequence[str], sampler: Sampler) -> Tensor:
    """Text prompts `(N, L, D)` as the base model reads them."""
    pipeline = sampler.pipeline
    embeds: Tensor = pipeline.encode_prompt(list(texts), pipeline.device, 1, False)[0]
    return embeds


def drawn(
    sampler: Sampler, pictures: Sequence[Picture], texts: Tensor | None
) -> Iterator[Image.Image]:
    """Each picture of an image prompt and, unless None, of one of `texts (N, L, D)`."""
    size = sampler.params.batch_size
    for start in range(0, len(pictures), size):
        part = slice(start, start + size)
        yield from sampler.draw(list(pictures[part]), None if texts is None else texts[part])


def write(path: Path, names: Sequence[Picture], images: Iterable[Image.Image]) -> int:
    """Write a tar of `<key>.<k>.png`, the same bytes for the same pictures; return their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wds.TarWriter(str(path), mtime=0, encoder=False) as tar:
        for name, image in zip(names, images, strict=True):
            file = BytesIO()
            image.save(file, "PNG")
            tar.write({"__key__": name.key, f"{name.k}.png": file.getvalue()})
    return len(names)
