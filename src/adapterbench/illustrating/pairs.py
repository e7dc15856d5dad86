"""Pairs of image and text prompt with a right answer, from emoji drawn by several makers.

`restyle`: an image by one maker and the style of another; the goal is the other maker's real image
of the same emoji. `concept`: an image and the name of another emoji; the goal is the same maker's
real image of that emoji. The image prompt itself is called the copy: the output of an adapter that
ignores the text. All images are held out.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from more_itertools import chunked
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
from adapterbench.frozen.conditions import Texts
from adapterbench.illustrating.drawing import Sheet, embedded
from adapterbench.sampling.sampler import ImageId, Sampler
from adapterbench.scoring.evaluator import Evaluator
from adapterbench.scoring.measures import cosine, finds
from adapterbench.scoring.samples import embed
from adapterbench.scoring.scores import write as write_table

log = logging.getLogger(__name__)


def restyle(samples: Sequence[Sample]) -> Iterator[Pair]:
    """Per concept, the first two images of one emoji by makers of different families."""
    used_concepts = set()
    first_images: dict[tuple[str, ...], Sample] = {}
    for sample in samples:
        emoji = tuple(sample.meta[field] for field in ("concept", "name", "tones"))
        first = first_images.setdefault(emoji, sample)
        if first.meta["family"] != sample.meta["family"] and emoji[0] not in used_concepts:
            used_concepts.add(emoji[0])
            yield Pair(prompt=first.key, text=style_of(sample), goal=sample.key)


def concept(samples: Sequence[Sample]) -> Iterator[Pair]:
    """Per maker and concept, an image with the name of the maker's next concept (cyclic)."""
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
    """The maker's style as captions name it: the end of the first phrasing, such as `3d style`."""
    return sample.captions[0].rpartition(", ")[2]


def named(sample: Sample) -> str:
    """Name of the emoji, with skin tones, without the style."""
    tones = sample.meta["tones"]
    return f"{sample.meta['name']} with {tones}" if tones else str(sample.meta["name"])


MAKERS = {"restyle": restyle, "concept": concept}
"""Protocol -> function that yields its pairs."""


AreTwins = Callable[[list[Pair]], list[bool]]
"""Whether the image prompt of each pair looks like its goal, which a copy would then be."""


def choose(
    samples: Iterable[Sample], count: int, seed: int, are_twins: AreTwins
) -> dict[str, list[Pair]]:
    """The first `count` pairs of each protocol without twins, over samples in hashed order.

    Empty if a protocol has no pairs, as in sources whose samples name no maker.

    Raises:
        UserError: a protocol has pairs, but fewer than `count`.
    """
    with_maker = [sample for sample in samples if "family" in sample.meta]
    ordered = sorted(with_maker, key=lambda sample: rank(sample.key, seed))
    found = {name: list(make(ordered)) for name, make in MAKERS.items()}
    if not all(found.values()):
        log.info("no held-out emoji by two makers: no prompts with a right answer")
        return {}
    if not count:
        return {}
    chosen = {name: first_distinct(pairs, count, are_twins) for name, pairs in found.items()}
    for name, pairs in chosen.items():
        if len(pairs) < count:
            raise UserError(
                f"illustrate.pairs = {count}, but the validation split gives {len(pairs)} for "
                f"{name} whose two images differ: lower it"
            )
    return chosen


def first_distinct(pairs: list[Pair], count: int, are_twins: AreTwins) -> list[Pair]:
    """The first `count` pairs without twins, or all that there are; few more are looked at."""
    distinct: list[Pair] = []
    for part in chunked(pairs, count):
        twins = are_twins(part)
        distinct += [pair for pair, twin in zip(part, twins, strict=True) if not twin]
        if len(distinct) >= count:
            break
    return distinct[:count]


def find_pairs(
    sampler: Sampler, shards: Path, count: int, evaluator: Evaluator, twin_cosine: float | None
) -> dict[str, list[Pair]]:
    """The pairs of each protocol among the encoded items; see `choose`.

    Two images are twins if their embeddings by `evaluator` have a cosine of `twin_cosine` or more;
    none are if it is None.
    """
    keys = {row["key"] for row in sampler.data.samples}
    samples = [s for s in read_split(shards, "validation", keys=keys) if "family" in s.meta]
    images = {sample.key: sample.image for sample in samples}

    def are_twins(pairs: list[Pair]) -> list[bool]:
        if twin_cosine is None:
            return [False] * len(pairs)
        prompts, goals = (
            evaluator.images([images[key] for key in side])
            for side in ([pair.prompt for pair in pairs], [pair.goal for pair in pairs])
        )
        return (cosine(prompts, goals) >= twin_cosine).tolist()

    return choose(samples, count, sampler.params.seed, are_twins)


def pair_sheets(
    sampler: Sampler, protocols: Mapping[str, Sequence[Pair]], out: Path
) -> Iterator[Sheet]:
    """The sheets of each protocol, in the folder `out` (layout: `formats.pairs`).

    An adapter gets image and text, the image alone, and the text with the next pair's image; the
    base model alone gets the text.
    """
    numbers = {row["key"]: number for number, row in enumerate(sampler.data.samples)}
    for protocol, pairs in protocols.items():
        image_ids = [ImageId(numbers[pair.prompt], pair.prompt, 0) for pair in pairs]
        texts = embedded([pair.text for pair in pairs], sampler)
        for name, (prompts, row_texts) in rows(sampler, image_ids, texts).items():
            tar = tar_path(out, protocol, name)
            yield Sheet(tar, image_ids, prompts, row_texts, sampler.params.scale)


def rows(
    sampler: Sampler, image_ids: list[ImageId], texts: Texts
) -> dict[str, tuple[list[ImageId], Texts | None]]:
    """Image prompts and embedded texts of one protocol's rows, by the name of the row."""
    if sampler.adapter is None:
        return {"text_only": (image_ids, texts)}
    # key and k, and so the noise, stay those of the pair
    others = [
        ImageId(other.number, image_id.key, image_id.k)
        for image_id, other in zip(image_ids, [*image_ids[1:], image_ids[0]], strict=True)
    ]
    return {
        "image_and_text": (image_ids, texts),
        "image_only": (image_ids, None),
        "shuffled_image": (others, texts),
    }


def score_pairs(evaluator: Evaluator, shards: Path, folder: Path, out: Path) -> None:
    """Score the generated images of the pairs in `folder`; write one row per image to `out`.

    Columns: `protocol`; `prompts`, the prompts that were given; `key` of the image prompt; `goal`
    and `copy`, cosines to the goal and to the image prompt; `r_at_1`, whether an image is nearer to
    its goal than to all other goals. The real images themselves are rows, too.
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
    """One frame per row of a protocol."""
    keys = [pair.prompt for pair in pairs]
    goals, copies = (
        evaluator.images([references[key] for key in image_keys])
        for image_keys in ([pair.goal for pair in pairs], keys)
    )

    def scores(prompts: str, images: Tensor) -> pd.DataFrame:
        columns: dict[str, Any] = {
            "goal": cosine(images, goals),
            "copy": cosine(images, copies),
            "r_at_1": finds(images, goals, torch.arange(len(goals))),
        }
        index = {"protocol": protocol, "prompts": prompts, "key": keys}
        return pd.DataFrame({**index, **{name: v.tolist() for name, v in columns.items()}})

    for tar in sorted(tars_path(folder, protocol).glob("*.tar")):
        generated = list(read_images(tar))
        yield scores(tar.stem, embed(tar, generated, evaluator))
    yield scores("real_goal", goals)
    yield scores("real_copy", copies)
