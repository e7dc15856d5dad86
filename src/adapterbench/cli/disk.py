"""Bytes that stage `encode` will write; the format stands in `formats.encoded`."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from adapterbench.cli.architecture import Shapes
from adapterbench.formats.shards import find_shards, read_captions, read_manifest

HALF, TOKEN, INTEGER = 2, 4, 8
"""Bytes of an fp16 value, of a token id and of a row number."""
TEXT_BYTES: dict[str, Callable[[tuple[int, int]], int]] = {
    "stored": lambda text: HALF * prod(text),
    "live": lambda text: TOKEN * text[0],
}
"""`encode.texts` -> shape `(L, D)` of an embedding -> bytes of a caption."""


@dataclass(frozen=True)
class Corpus:
    """How much there is to encode."""

    samples: int
    """Images of all splits."""
    captions: int
    """Distinct captions of all splits."""
    phrasings: int
    """Entries of the tables of phrasings."""


def plain(samples: int) -> Corpus:
    """A corpus with one caption an image, none twice."""
    return Corpus(samples, samples, samples)


def count_shards(folder: Path) -> Corpus:
    """Count what stage `prepare` left; no image is decoded.

    Raises:
        UserError: a shard that the manifest names is missing or damaged.
    """
    distinct: set[str] = set()
    samples = phrasings = 0
    for split in read_manifest(folder).splits:
        spoken = [texts for shard in find_shards(folder, split) for texts in read_captions(shard)]
        distinct.update(*spoken)
        samples += len(spoken)
        phrasings += len(spoken) * max(map(len, spoken), default=0)
    return Corpus(samples, len(distinct), phrasings)


def encoded_bytes(corpus: Corpus, shapes: Shapes, texts: str) -> dict[str, int]:
    """Bytes of each kind of tensor in the encoded shards, without the names of the samples.

    Args:
        corpus: what is encoded.
        shapes: of one sample.
        texts: one of `TEXT_BYTES`.
    """
    return {
        "latents": HALF * prod(shapes.latents) * corpus.samples,
        "image_embeds": HALF * shapes.image * corpus.samples,
        # the empty caption besides
        "texts": TEXT_BYTES[texts](shapes.text) * (corpus.captions + 1),
        "phrasings": INTEGER * corpus.phrasings,
    }
