"""An adapter's pictures with other texts, on other base models and at other scales.

A picture's noise is that of its item in stage `sample`: the same whatever the method, the base
model and the scale.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import webdataset as wds
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adapterbench.config import IllustrateParams, PromptParams, SampleParams
from adapterbench.sample.sampler import Picture, Sampler

PROMPTS, BASES, SWEEP = "prompts.tar", "bases", "sweep"
"""What `draw` writes: a tar, a folder with a tar a base, a folder with a tar a scale."""

SCORES = "sweep.parquet"
"""Scores of the sweep; `protocol` is the scale, `clip_i_shuffled` the pull of the image prompt."""

Drawn = Iterator[tuple[Picture, Image.Image]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Folders that other stages leave."""

    encoded: Path
    backbone: Path
    bases: Path
    """`<base>/` in diffusers layout."""
    adapter: Path | None
    """None: the base models alone, given texts."""


def draw(params: IllustrateParams, sample: SampleParams, inputs: Inputs, out: Path) -> int:
    """Fill the folder `out` with tars of `<key>.<k>.png`; return the number of pictures.

    Raises:
        UserError: an input is missing or does not fit.
    """
    sampler = Sampler(sample, inputs.encoded, inputs.backbone, inputs.adapter)
    made = write(out / PROMPTS, prompted(sampler, params.prompts))
    if inputs.adapter:
        for scale in tqdm(params.scales, "scales", mininterval=1):
            made += write(out / SWEEP / f"{scale:g}.tar", pulled(sampler, scale, params))
    for base in tqdm(sorted(inputs.bases.iterdir()), "bases", mininterval=1):
        other = Sampler(sample, inputs.encoded, base, inputs.adapter)
        chosen = items(other)[: params.items]
        # an adapter answers the image prompt alone, a base model without one the caption
        texts = None if inputs.adapter else other.captions(chosen)
        made += write(out / BASES / f"{base.name}.tar", drawn(other, chosen, texts))
    return made


def items(sampler: Sampler) -> list[Picture]:
    """The first picture of every sampled item."""
    return [picture for picture in sampler.pictures() if picture.k == 0]


def prompted(sampler: Sampler, prompts: Sequence[PromptParams]) -> Drawn:
    """Image prompts with text prompts; `k` is the number of the pair."""
    captions = [sample["caption"] for sample in sampler.data.samples]
    chosen = [
        replace(mentioning(prompt.image, items(sampler), captions, k), k=k)
        for k, prompt in enumerate(prompts)
    ]
    texts, _ = sampler.pipeline.encode_prompt(
        [prompt.text for prompt in prompts], sampler.pipeline.device, 1, False
    )
    return drawn(sampler, chosen, texts)


def mentioning(
    word: str, pictures: Sequence[Picture], captions: Sequence[str], place: int
) -> Picture:
    """The first picture whose item's caption has `word`, or else the one at `place`."""
    found = (p for p in pictures if word in captions[p.number].replace(",", " ").split())
    return next(found, pictures[place % len(pictures)])


def pulled(sampler: Sampler, scale: float, params: IllustrateParams) -> Drawn:
    """Pictures of each item's caption, pulled by `scale` towards the next item's image prompt."""
    assert sampler.adapter
    own = items(sampler)[: params.sweep_items]
    other = [*own[1:], own[0]]
    sampler.adapter.scale = scale
    both = [replace(a, number=b.number) for a, b in zip(own, other, strict=True)]
    return drawn(sampler, both, sampler.captions(own))


def drawn(sampler: Sampler, pictures: Sequence[Picture], texts: Tensor | None) -> Drawn:
    """Each picture of an image prompt and, unless None, of one of `texts (N, L, D)`."""
    size = sampler.params.batch_size
    for start in range(0, len(pictures), size):
        part = slice(start, start + size)
        batch = list(pictures[part])
        images = sampler.draw(batch, None if texts is None else texts[part])
        yield from zip(batch, images, strict=True)


def write(path: Path, pictures: Iterable[tuple[Picture, Image.Image]]) -> int:
    """Write a tar of `<key>.<k>.png`, the same bytes for the same pictures; return their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wds.TarWriter(str(path), mtime=0, encoder=False) as tar:
        count = 0
        for picture, image in pictures:
            file = BytesIO()
            image.save(file, "PNG")
            tar.write({"__key__": picture.key, f"{picture.k}.png": file.getvalue()})
            count += 1
    return count
