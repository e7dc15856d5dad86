"""Image and text prompts that together have a right answer, as several makers drew the same thing.

`restyle`: an image by one maker and the words for another's style; the goal is the other's real
image of the same thing. `concept`: an image by a maker and the name of another thing; the goal is
the same maker's real image of that. The image prompt itself is the copy: what an adapter shows that
does not read the text. All images are held out.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.core.seeds import rank
from adapterbench.formats.generated import read_images
from adapterbench.formats.pairs import (
    PROTOCOLS,
    Pair,
    list_path,
    read_pairs,
    tar_path,
    tars_path,
)
from adapterbench.formats.shards import Sample, read_split
from adapterbench.illustrating.drawing import Sheet, embedded
from adapterbench.sampling.sampler import ImageId, Sampler
from adapterbench.scoring.evaluator import Evaluator
from adapterbench.scoring.measures import cosine, finds
from adapterbench.scoring.samples import embed
from adapterbench.scoring.scores import write as write_table

log = logging.getLogger(__name__)


def restyle(samples: Sequence[Sample]) -> Iterator[Pair]:
    """Of each concept, the first two images of one thing by makers of different families."""
    taken = set()
    things: dict[tuple[str, ...], Sample] = {}
    for sample in samples:
        thing = tuple(sample.meta[fact] for fact in ("concept", "name", "tones"))
        first = things.setdefault(thing, sample)
        if first.meta["family"] != sample.meta["family"] and thing[0] not in taken:
            taken.add(thing[0])
            yield Pair(prompt=first.key, text=style_of(sample), goal=sample.key)


def concept(samples: Sequence[Sample]) -> Iterator[Pair]:
    """An image by each maker of each concept, with the name of the one that the maker drew next."""
    drawings: dict[str, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        drawings[sample.meta["style"]].setdefault(sample.meta["concept"], sample)
    follower: dict[str, Sample] = {}
    for by_concept in drawings.values():
        first, *rest = by_concept.values()
        follower |= {a.key: b for a, b in zip([first, *rest], [*rest, first], strict=True)}
    for sample in samples:
        other = follower.get(sample.key, sample)
        if other is not sample:
            yield Pair(prompt=sample.key, text=named(other), goal=other.key)


def style_of(sample: Sample) -> str:
    """How captions call the maker's style: what their first phrasing ends with, `.., 3d style`."""
    return sample.captions[0].rpartition(", ")[2]


def named(sample: Sample) -> str:
    """What an image shows, without its style."""
    tones = sample.meta["tones"]
    return f"{sample.meta['name']} with {tones}" if tones else str(sample.meta["name"])


MAKERS = {"restyle": restyle, "concept": concept}
"""What makes the pairs of each protocol."""


def choose(samples: Iterable[Sample], count: int, seed: int) -> dict[str, list[Pair]]:
    """The first `count` pairs of each protocol, samples in hashed order.

    None where no two makers drew the same thing, as in sources whose samples name no maker.

    Raises:
        UserError: there are some, but fewer than `count`.
    """
    made = [sample for sample in samples if "family" in sample.meta]
    ordered = sorted(made, key=lambda sample: rank(sample.key, seed))
    chosen = {name: list(make(ordered)) for name, make in MAKERS.items()}
    if not all(chosen.values()):
        log.info("no two makers drew the same held-out thing: no prompts with a right answer")
        return {}
    for name, pairs in chosen.items():
        if len(pairs) < count:
            raise UserError(
                f"illustrate.pairs = {count}, but the validation split gives {len(pairs)} for "
                f"{name}: lower it"
            )
    return {name: pairs[:count] for name, pairs in chosen.items()} if count else {}


def find_pairs(sampler: Sampler, shards: Path, count: int) -> dict[str, list[Pair]]:
    """The pairs of each protocol among the items that are encoded; see `choose`."""
    keys = {row["key"] for row in sampler.data.samples}
    return choose(read_split(shards, "validation", keys=keys), count, sampler.params.seed)


def pair_sheets(
    sampler: Sampler, protocols: Mapping[str, Sequence[Pair]], out: Path
) -> Iterator[Sheet]:
    """What is drawn of pairs: the sheets of each protocol, in the folder `out` (`formats.pairs`).

    An adapter is given image and text, the image alone, and the text with the next pair's image; a
    base model without one the text.
    """
    numbers = {row["key"]: number for number, row in enumerate(sampler.data.samples)}
    for protocol, pairs in protocols.items():
        own = [ImageId(numbers[pair.prompt], pair.prompt, 0) for pair in pairs]
        texts = embedded([pair.text for pair in pairs], sampler)
        for name, (prompts, said) in rows(sampler, own, texts).items():
            tar = tar_path(out, protocol, name)
            yield Sheet(tar, own, prompts, said, sampler.params.scale)


def rows(
    sampler: Sampler, own: list[ImageId], texts: Tensor
) -> dict[str, tuple[list[ImageId], Tensor | None]]:
    """What is drawn of one protocol: image prompts and texts by the name of the row."""
    if sampler.adapter is None:
        return {"text_only": (own, texts)}
    # the noise stays that of the pair
    others = [
        ImageId(other.number, image_id.key, image_id.k)
        for image_id, other in zip(own, [*own[1:], own[0]], strict=True)
    ]
    return {
        "image_and_text": (own, texts),
        "image_only": (own, None),
        "shuffled_image": (others, texts),
    }


def score_pairs(evaluator: Evaluator, shards: Path, folder: Path, out: Path) -> None:
    """Score what is drawn of the pairs in `folder` against goals and copies, a row an image.

    `prompts` says what was given, `key` is that of the image prompt. `goal` and `copy` are cosines
    to the two real images; `r_at_1` is whether an image is nearer to its goal than to all other
    goals. The real images themselves are rows, too.
    """
    protocols = {
        protocol: read_pairs(path)
        for protocol in sorted(PROTOCOLS)
        if (path := list_path(folder, protocol)).exists()
    }
    keys = {
        key for pairs in protocols.values() for pair in pairs for key in (pair.prompt, pair.goal)
    }
    references = {s.key: s.image for s in read_split(shards, "validation", keys=keys)}
    frames = [
        frame
        for protocol, pairs in protocols.items()
        for frame in score_protocol(evaluator, folder, protocol, pairs, references)
    ]
    write_table(pd.concat(frames, ignore_index=True), out)


def score_protocol(
    evaluator: Evaluator,
    folder: Path,
    protocol: str,
    pairs: list[Pair],
    references: dict[str, Image.Image],
) -> Iterator[pd.DataFrame]:
    """A frame for each row of a protocol and its `pairs`."""
    keys = [pair.prompt for pair in pairs]
    goals, copies = (
        evaluator.images([references[key] for key in kind])
        for kind in ([pair.goal for pair in pairs], keys)
    )

    def scores(prompts: str, images: Tensor) -> pd.DataFrame:
        columns: dict[str, Any] = {
            "goal": cosine(images, goals),
            "copy": cosine(images, copies),
            "r_at_1": finds(images, goals, torch.arange(len(goals))),
        }
        facts = {"protocol": protocol, "prompts": prompts, "key": keys}
        return pd.DataFrame({**facts, **{name: v.tolist() for name, v in columns.items()}})

    for tar in sorted(tars_path(folder, protocol).glob("*.tar")):
        made = list(read_images(tar))
        yield scores(tar.stem, embed(tar, made, evaluator))
    yield scores("real_goal", goals)
    yield scores("real_copy", copies)
