"""An adapter's pictures with other texts, on other base models and at other scales.

A picture's noise is that of its item in stage `sample`: the same whatever the method, the base
model and the scale.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import IllustrateParams, SampleParams
from adapterbench.formats.generated import Illustrations
from adapterbench.illustrating.drawing import drawn, embedded, write
from adapterbench.illustrating.pairs import draw_pairs
from adapterbench.runs.processes import processes
from adapterbench.sampling.sampler import Picture, Sampler

log = logging.getLogger(__name__)


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
    variant: Variant | None = None
    """Row of the adapter; None: see `Sampler`."""


def draw(params: IllustrateParams, sample: SampleParams, inputs: Inputs, out: Path) -> int:
    """Fill the folder `out` as `Illustrations` has it; return the number of images.

    Raises:
        UserError: an input is missing or does not fit.
    """

    def on(base: Path) -> Sampler:
        where = inputs.adapter, processes().device, inputs.shards, inputs.variant
        return Sampler(sample, inputs.encoded, base, *where)

    sampler, to = on(inputs.backbone), Illustrations(out)
    chosen = mentioning([prompt.image for prompt in params.prompts], sampler)
    texts = embedded([prompt.text for prompt in params.prompts], sampler)
    pairs = [replace(picture, k=number) for number, picture in enumerate(chosen)]
    made = write(to.prompts, pairs, drawn(sampler, chosen, texts))
    if inputs.adapter:
        own = items(sampler)[: params.sweep_items]
        for scale in tqdm(params.scales, "scales", mininterval=1):
            made += write(to.scale(scale), own, pulled(sampler, own, scale))
    made += draw_pairs(sampler, inputs.shards, params.pairs, to.pairs)
    once = list(dict.fromkeys(chosen))
    for base in tqdm(sorted(inputs.bases.iterdir()), "bases", mininterval=1):
        other = on(base)
        # an adapter answers the image prompt alone, a base model without one the caption
        captions = None if inputs.adapter else other.captions(once)
        made += write(to.base(base.name), once, drawn(other, once, captions))
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
