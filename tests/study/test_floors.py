"""Floors, ceilings and nearest training images of a split."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from toy_backbone import SAMPLE, Toy

from adapterbench.formats.encoded import EncodedSplit
from adapterbench.study.floors import measure_floors, nearest
from adapterbench.study.runs.files import NEAREST, Data


def test_floors_and_real_images_are_scored(toy: Toy, data: Data, workplace: Path) -> None:
    out = workplace / "floors"
    measure_floors(SAMPLE, toy.score_params(), data, "validation", out)
    frames = {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}
    assert {"no_prompt", "text_only", "vae", "reference", "other_item"} < frames.keys()
    assert np.allclose(frames["reference"]["clip_i"], 1, atol=1e-5)
    assert frames["no_prompt"]["protocol"].unique().tolist() == ["image"]
    assert frames["text_only"]["protocol"].unique().tolist() == ["image_text"]
    assert (out / NEAREST).exists()


def test_the_nearest_training_image(toy: Toy) -> None:
    table = nearest(toy.encoded, "validation").set_index("key")["cosine"]
    sides = {}
    for split in ("train", "validation"):
        encoded = EncodedSplit(toy.encoded, split)
        every = encoded.gather(torch.arange(len(encoded)), torch.zeros(len(encoded)))
        sides[split] = every.image_embeds.double()
    cosines = torch.cosine_similarity(sides["validation"][:, None], sides["train"][None], dim=-1)
    np.testing.assert_allclose(table.to_numpy(), cosines.amax(dim=1), atol=1e-5)
    assert (nearest(toy.encoded, "train")["cosine"] > 0.9999).all()
