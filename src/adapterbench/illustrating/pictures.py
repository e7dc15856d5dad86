"""An adapter's pictures with other texts, on other base models and at other scales.

A picture's noise is that of its item in stage `sample`: the same whatever the method, the base
model and the scale.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import cycle
from pathlib import Path

import webdataset as wds
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.config import IllustrateParams, OwnEncoder, SampleParams
from adapterbench.runs.processes import processes
from adapterbench.sampling.sampler import Picture, Sampler

log = logging.getLogger(__name__)

PROMPTS, BASES, SWEEP = "prompts.tar", "bases", "sweep"
"""What `draw` writes: a tar, a folder with a tar a base, a folder with a tar a scale."""

SCORES = "sweep.parquet"
"""Scores of the sweep; `protocol` is the scale, `clip_i_shuffled` the pull of the image prompt."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Folders that other stages leave."""

    encoded: Path
    shards: Path
    backbone: Path
    bases: Path
    """`<base>/` in diffusers layout."""
    adapter: Path | None
    """None: the base models alone, given texts."""
    encoder: OwnEncoder | None = None
    """Image encoder of the adapter, as its row names it; None: that of stage encode."""


def draw(params: IllustrateParams, sample: SampleParams, inputs: Inputs, out: Path) -> int:
    """Fill the folder `out` with tars of `<key>.<k>.png`; return the number of pictures.

    Raises:
        UserError: an input is missing or does not fit.
    """

    def on(base: Path) -> Sampler:
        where = inputs.adapter, processes().device, inputs.shards, inputs.encoder
        return Sampler(sample, inputs.encoded, base, *where)

    sampler = on(inputs.backbone)
    chosen = mentioning([prompt.image for prompt in params.prompts], sampler)
    texts = embedded([prompt.text for prompt in params.prompts], sampler)
    pairs = [replace(picture, k=number) for number, picture in enumerate(chosen)]
    made = write(out / PROMPTS, pairs, drawn(sampler, chosen, texts))
    if inputs.adapter:
        own = items(sampler)[: params.sweep_items]
        for scale in tqdm(params.scales, "scales", mininterval=1):
            made += write(out / SWEEP / f"{scale:g}.tar", own, pulled(sampler, own, scale))
    once = list(dict.fromkeys(chosen))
    for base in tqdm(sorted(inputs.bases.iterdir()), "bases", mininterval=1):
        other = on(base)
        # an adapter answers the image prompt alone, a base model without one the caption
        captions = None if inputs.adapter else other.captions(once)
        made += write(out / BASES / f"{base.name}.tar", once, drawn(other, once, captions))
    return made


def items(sampler: Sampler) -> list[Picture]:
    """The first picture of every sampled item."""
    return [picture for picture in sampler.pictures() if picture.k == 0]


def mentioning(words: Sequence[str], sampler: Sampler) -> list[Picture]:
    """For each word the first item whose caption has it, or else some item."""
    pictures = items(sampler)
    captions = [sampler.data.samples[p.number]["captions"][0] for p in pictures]
    said = [set(caption.replace(",", " ").split()) for caption in captions]
    if unheard := sorted(set(words).difference(*said)):
        log.warning("no item's caption has %s: other items take the place", ", ".join(unheard))
    return [
        next((p for p, caption in zip(pictures, said, strict=True) if word in caption), some)
        for word, some in zip(words, cycle(pictures), strict=False)
    ]


def embedded(texts: Sequence[str], sampler: Sampler) -> Tensor:
    """Text prompts `(N, L, D)` as the base model reads them."""
    pipeline = sampler.pipeline
    embeds: Tensor = pipeline.encode_prompt(list(texts), pipeline.device, 1, False)[0]
    return embeds


def pulled(sampler: Sampler, own: Sequence[Picture], scale: float) -> Iterator[Image.Image]:
    """Pictures of each item's caption, pulled by `scale` towards the next item's image prompt."""
    assert sampler.adapter
    sampler.adapter.scale = scale
    numbers = [picture.number for picture in own]
    both = [
        replace(picture, number=other)
        for picture, other in zip(own, [*numbers[1:], numbers[0]], strict=True)
    ]
    return drawn(sampler, both, sampler.captions(list(own)))


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
