"""CLIP-T and CLIP-I of every picture of one method.

CLIP-T = cos(v_gen, v_text), CLIP-I = cos(v_gen, v_ref): the deck's means are over these rows
(cosines, neither clipped nor scaled; CLIPScore of Hessel et al. 2021 is 2.5 max(CLIP-T, 0)).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from more_itertools import chunked
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.config import ScoreParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.formats.image import decode
from adapterbench.formats.shards import read_split
from adapterbench.formats.tars import open_tar
from adapterbench.frozen.load import Clip, load_clip
from adapterbench.runs.processes import processes, share


@dataclass(frozen=True)
class Judge:
    """The evaluator with the captions and the reference pictures of the items."""

    clip: Clip
    captions: dict[str, str]
    references: dict[str, Image.Image]
    batch_size: int

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit embeddings `(N, D)`."""
        return self.embed(self.clip.image_embeds, images)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings `(N, D)`."""
        return self.embed(self.clip.text_embeds, texts)

    def embed(self, network: Callable[[list[Any]], Tensor], inputs: Sequence[Any]) -> Tensor:
        """Unit embeddings `(N, D)` by `network`; the stage's processes share the batches."""
        batches = list(enumerate(chunked(inputs, self.batch_size)))
        mine = [(number, network(batch)) for number, batch in share(batches, processes())]
        parts = dict(gather_object(mine))
        return F.normalize(torch.cat([parts[number] for number, _ in batches]), dim=-1)


def load_judge(params: ScoreParams, shards: Path, samples: Path) -> Judge:
    """Load the evaluator and the validation items that `samples` holds pictures of."""
    keys = {row["key"] for path in tars(samples) for row in read_pictures(path)}
    items = {s.key: s for s in read_split(shards, "validation") if s.key in keys}
    return Judge(
        load_clip(params.encoder, params.pretrained).to(processes().device),
        {key: item.captions[0] for key, item in items.items()},
        {key: item.image for key, item in items.items()},
        params.batch_size,
    )


def score_samples(judge: Judge, samples: Path, out: Path) -> pd.DataFrame:
    """Score all tars of a method and write one row a picture to the parquet file `out`.

    Columns: `protocol, key, k, clip_t, clip_i, clip_t_shuffled, clip_i_shuffled`; shuffled scores
    hold the same picture against the caption and reference of the next item, which is what an
    adapter given another item's reference would get.

    Raises:
        UserError: a tar is damaged, or holds a picture of no validation item.
    """
    frames = []
    for path in tqdm(tars(samples), disable=not processes().is_main_process):
        rows = list(read_pictures(path))
        check_items(judge, rows)
        embed = partial(embed_pictures, judge.clip, path)
        frames.append(score_pictures(judge, path.stem, rows, judge.embed(embed, rows)))
    return write(pd.concat(frames, ignore_index=True), out)


def score_references(judge: Judge, samples: Path, out: Path) -> pd.DataFrame:
    """The ceiling: the real pictures of the items in `samples` in place of generated ones."""
    keys = dict.fromkeys(row["key"] for row in read_pictures(tars(samples)[0]))
    rows = [{"key": key, "k": 0} for key in keys]
    check_items(judge, rows)
    real = judge.images([judge.references[key] for key in keys])
    return write(score_pictures(judge, "image", rows, real), out)


def tars(samples: Path) -> list[Path]:
    """The tars of a method, in order."""
    if not (paths := sorted(samples.glob("*.tar"))):
        raise UserError(f"{samples} holds no samples: run `dvc repro sample`")
    return paths


def check_items(judge: Judge, rows: list[dict[str, Any]]) -> None:
    """Refuse pictures that have no caption to be held against.

    Raises:
        UserError: one is of no validation item.
    """
    if strangers := [row["key"] for row in rows if row["key"] not in judge.captions]:
        raise UserError(f"{strangers[0]} is not a validation item: run `dvc repro` to sample again")


def score_pictures(
    judge: Judge, protocol: str, rows: list[dict[str, Any]], pictures: Tensor
) -> pd.DataFrame:
    """Score pictures `{key, k}` by their embeddings `(N, D)`; the items are in their order."""
    keys = list(dict.fromkeys(row["key"] for row in rows))
    texts = judge.texts([judge.captions[key] for key in keys])
    references = judge.images([judge.references[key] for key in keys])
    place = {key: number for number, key in enumerate(keys)}
    own = torch.tensor([place[row["key"]] for row in rows])
    other = (own + 1) % len(keys)
    scores = {
        "clip_t": cosine(pictures, texts[own]),
        "clip_i": cosine(pictures, references[own]),
        "clip_t_shuffled": cosine(pictures, texts[other]),
        "clip_i_shuffled": cosine(pictures, references[other]),
    }
    index = {"protocol": protocol, "key": [r["key"] for r in rows], "k": [r["k"] for r in rows]}
    return pd.DataFrame({**index, **{name: value.tolist() for name, value in scores.items()}})


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise cosine of unit vectors `(N, D)`, float64 so that sums do not depend on order."""
    return (a.double() * b.double()).sum(dim=-1)


def read_pictures(path: Path) -> Iterator[dict[str, Any]]:
    """The pictures of a tar as `{key, k, png}`, in order, not decoded.

    Raises:
        UserError: the tar is damaged.
    """
    with intact(path), open_tar(path) as tar:
        for name in tar.members:
            key, k, _ = name.rsplit(".", 2)
            yield {"key": key, "k": int(k), "png": tar.read(name)}


def embed_pictures(clip: Clip, path: Path, rows: list[dict[str, Any]]) -> Tensor:
    """Embeddings `(B, D)` of some pictures of the tar at `path`, not normalised.

    Raises:
        UserError: a picture is damaged.
    """
    with intact(path):
        images = [decode(row["png"]) for row in rows]
    return clip.image_embeds(images)


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Say how to mend a tar whose reading fails in the block."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run `dvc repro sample@{path.parent.name}`"
        ) from error


def write(frame: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Write a table, which every process has, as parquet."""
    state = processes()
    if state.is_main_process:
        with publish(out) as beside:
            frame.to_parquet(beside, index=False)
    state.wait_for_everyone()
    return frame
