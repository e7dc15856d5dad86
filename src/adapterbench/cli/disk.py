"""Estimate the bytes that stage `encode` writes; the format is defined in `formats.encoded`."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from adapterbench.cli.architecture import Shapes
from adapterbench.core.config import EncodeParams
from adapterbench.core.errors import UserError
from adapterbench.formats.shards import find_shards, read_captions, read_manifest

HALF, TOKEN, INTEGER = 2, 4, 8
"""Bytes of an fp16 value, a token id and a row number."""
TEXT_BYTES: dict[str, Callable[[Shapes], int]] = {
    "stored": lambda shapes: HALF * prod(shapes.text),
    "live": lambda shapes: TOKEN * shapes.text[0] * shapes.text_encoders,
}
"""`encode.texts` -> function from the shapes of a sample to bytes per caption."""


@dataclass(frozen=True)
class Corpus:
    """Size of the data to encode."""

    samples: int
    """Images of all splits."""
    captions: int
    """Distinct captions of all splits."""
    phrasings: int
    """Entries of the phrasing tables: samples x phrasings per sample."""


def plain(samples: int) -> Corpus:
    """A corpus with one distinct caption per image."""
    return Corpus(samples, samples, samples)


def count_shards(folder: Path) -> Corpus:
    """Count the output of stage `prepare` without decoding images.

    Raises:
        UserError: a shard in the manifest is missing or damaged.
    """
    distinct: set[str] = set()
    samples = phrasings = 0
    for split in read_manifest(folder).splits:
        captions = [texts for shard in find_shards(folder, split) for texts in read_captions(shard)]
        distinct.update(*captions)
        samples += len(captions)
        phrasings += len(captions) * max(map(len, captions), default=0)
    return Corpus(samples, len(distinct), phrasings)


def encoded_bytes(corpus: Corpus, shapes: Shapes, params: EncodeParams) -> dict[str, int]:
    """Bytes of each kind of tensor in the encoded shards, without the sample keys.

    Args:
        corpus: size of the data.
        shapes: shapes of one sample.
        params: whether patches are stored, and what of texts.

    Raises:
        UserError: patches are to be stored, and the image encoder has none.
    """
    if params.patches and shapes.patches is None:
        raise UserError(
            f"encode.patches = true, but the image encoder {params.image_encoder} has no patch "
            "features: choose a vision transformer, or set it to false"
        )
    # + 1: the unconditional ones
    patches = HALF * prod(shapes.patches or ()) * (corpus.samples + 1)
    return {
        "latents": HALF * prod(shapes.latents) * corpus.samples,
        "image_embeds": HALF * shapes.image * corpus.samples,
        **({"patches": patches} if params.patches else {}),
        # + 1: the empty caption
        "texts": TEXT_BYTES[params.texts](shapes) * (corpus.captions + 1),
        "phrasings": INTEGER * corpus.phrasings,
    }
