"""CLIP-T and CLIP-I of every picture of one method.

CLIP-T = cos(v_gen, v_text), CLIP-I = cos(v_gen, v_ref): the deck's means are over these rows
(cosines, neither clipped nor scaled; CLIPScore of Hessel et al. 2021 is 2.5 max(CLIP-T, 0)).
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from more_itertools import chunked
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adapterbench.backbone.load import Clip, load_clip
from adapterbench.config import ScoreParams
from adapterbench.data.image import decode
from adapterbench.data.shards import read_split
from adapterbench.errors import UserError
from adapterbench.files import check_tar_end, publish


@dataclass(frozen=True)
class Judge:
    """The evaluator with the captions and the reference pictures of the validation split."""

    clip: Clip
    captions: dict[str, str]
    references: dict[str, Image.Image]
    batch_size: int

    def images(self, images: list[Image.Image]) -> Tensor:
        """Unit embeddings `(N, D)`."""
        parts = chunked(images, self.batch_size)
        return F.normalize(torch.cat([self.clip.image_embeds(part) for part in parts]), dim=-1)

    def texts(self, texts: list[str]) -> Tensor:
        """Unit embeddings `(N, D)`."""
        parts = chunked(texts, self.batch_size)
        return F.normalize(torch.cat([self.clip.text_embeds(part) for part in parts]), dim=-1)


def load_judge(params: ScoreParams, shards: Path) -> Judge:
    """Load the evaluator and read the validation split."""
    samples = {sample.key: sample for sample in read_split(shards, "validation")}
    return Judge(
        load_clip(params.encoder, params.pretrained),
        {key: sample.captions[0] for key, sample in samples.items()},
        {key: sample.image for key, sample in samples.items()},
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
    paths = tars(samples)
    frames = [score_pictures(judge, path.stem, read_pictures(path)) for path in tqdm(paths)]
    return write(pd.concat(frames, ignore_index=True), out)


def score_references(judge: Judge, samples: Path, out: Path) -> pd.DataFrame:
    """The ceiling: the real pictures of the items in `samples` in place of generated ones."""
    keys = dict.fromkeys(row["key"] for row in read_pictures(tars(samples)[0]))
    rows = [{"key": key, "k": 0, "image": judge.references[key]} for key in keys]
    return write(score_pictures(judge, "image", rows), out)


def tars(samples: Path) -> list[Path]:
    """The tars of a method, in order."""
    if not (paths := sorted(samples.glob("*.tar"))):
        raise UserError(f"{samples} holds no samples: run `dvc repro sample`")
    return paths


def score_pictures(judge: Judge, protocol: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Score pictures `{key, k, image}`; the items are in the order of their keys."""
    keys = list(dict.fromkeys(row["key"] for row in rows))
    if strangers := [key for key in keys if key not in judge.captions]:
        raise UserError(f"{strangers[0]} is not a validation item: run `dvc repro` to sample again")
    generated = judge.images([row["image"] for row in rows])
    texts = judge.texts([judge.captions[key] for key in keys])
    references = judge.images([judge.references[key] for key in keys])
    place = {key: number for number, key in enumerate(keys)}
    own = torch.tensor([place[row["key"]] for row in rows])
    other = (own + 1) % len(keys)
    scores = {
        "clip_t": cosine(generated, texts[own]),
        "clip_i": cosine(generated, references[own]),
        "clip_t_shuffled": cosine(generated, texts[other]),
        "clip_i_shuffled": cosine(generated, references[other]),
    }
    index = {"protocol": protocol, "key": [r["key"] for r in rows], "k": [r["k"] for r in rows]}
    return pd.DataFrame({**index, **{name: value.tolist() for name, value in scores.items()}})


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise cosine of unit vectors `(N, D)`, float64 so that sums do not depend on order."""
    return (a.double() * b.double()).sum(dim=-1)


def read_pictures(path: Path) -> list[dict[str, Any]]:
    """The pictures of a tar as `{key, k, image}`, in order.

    Raises:
        UserError: the tar or a picture in it is damaged.
    """
    rows = []
    try:
        check_tar_end(path)
        with tarfile.open(path) as tar:
            for member in tar:
                key, k, _ = member.name.rsplit(".", 2)
                file = tar.extractfile(member)
                if file is None:
                    raise ValueError(f"{member.name} is not a file")
                rows.append({"key": key, "k": int(k), "image": decode(file.read())})
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run `dvc repro sample@{path.parent.name}`"
        ) from error
    return rows


def write(frame: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Write a table as parquet."""
    with publish(out) as beside:
        frame.to_parquet(beside, index=False)
    return frame
