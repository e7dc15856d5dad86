"""What all illustrations share: texts as the base model reads them, images, and their tars."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from adapterbench.formats.generated import Generated, write_images
from adapterbench.formats.image import to_png
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
    """Write images under the keys and numbers of `names`; return how many."""
    named = zip(names, images, strict=True)
    write_images(path, (Generated(name.key, name.k, to_png(image)) for name, image in named))
    return len(names)
