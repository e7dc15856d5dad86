"""Generate the images of illustrations, tar by tar; embed their text prompts."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from more_itertools import chunked
from tqdm import tqdm

from adapterbench.core.files import publish
from adapterbench.formats.generated import Generated, write_images
from adapterbench.formats.image import to_png
from adapterbench.frozen.conditions import Texts
from adapterbench.runs.processes import share
from adapterbench.sampling.sampler import ImageId, Sampler


def embedded(texts: Sequence[str], sampler: Sampler) -> Texts:
    """The texts as the base model's text encoders embed them."""
    return sampler.encoders.embed(sampler.encoders.token_ids(texts))


@dataclass(frozen=True, slots=True)
class Sheet:
    """The images of one tar and what they are generated from."""

    tar: Path
    names: Sequence[ImageId]
    """Key and k under which each image is stored."""
    prompts: Sequence[ImageId]
    """Source of the image prompt and the noise of each image."""
    texts: Texts | None
    """One per image; None: the empty caption."""
    scale: float | Mapping[str, float]
    """Weight of the image prompts (lambda), of all layers or by the path of a layer."""

    @property
    def parts(self) -> Path:
        """Temporary folder of the images until the tar is packed."""
        return self.tar.with_suffix("")

    def file(self, number: int) -> Path:
        """Temporary file of image `number`."""
        return self.parts / f"{number}.png"


def draw_share(
    sampler: Sampler, sheets: Sequence[Sheet], state: PartialState, title: str = "illustrate"
) -> None:
    """Generate this process's share of the batches of all sheets; existing images are kept.

    Args:
        title: of the progress bar.
    """
    size, quiet = sampler.params.batch_size, not state.is_main_process
    # batch first, then share: rounding depends on the composition of the batch
    batches = [
        (sheet, batch) for sheet in sheets for batch in chunked(range(len(sheet.names)), size)
    ]
    for sheet, batch in tqdm(share(batches, state), title, unit="batch", disable=quiet):
        draw_batch(sampler, sheet, batch)


def draw_batch(sampler: Sampler, sheet: Sheet, numbers: list[int]) -> None:
    """Generate the images `numbers` of a sheet, unless all of them exist."""
    if sheet.tar.exists() or all(sheet.file(number).exists() for number in numbers):
        return
    if sampler.adapter:
        sampler.adapter.scale = sheet.scale
    texts = None if sheet.texts is None else sheet.texts[numbers]
    images = sampler.draw([sheet.prompts[number] for number in numbers], texts)
    for number, image in zip(numbers, images, strict=True):
        with publish(sheet.file(number)) as beside:
            beside.write_bytes(to_png(image))


def pack(sheet: Sheet) -> None:
    """Pack the images of a sheet, all generated, into its tar."""
    if sheet.tar.exists():
        return
    with publish(sheet.tar) as beside:
        named = enumerate(sheet.names)
        write_images(
            beside, (Generated(name.key, name.k, sheet.file(n).read_bytes()) for n, name in named)
        )
    shutil.rmtree(sheet.parts)
