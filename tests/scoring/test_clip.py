"""Scores against open_clip called by hand; tars that are damaged or not ours."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import webdataset as wds
from PIL import Image
from toy_backbone import Toy, picture, toy_samples

from adapterbench.core.config import ScoreParams
from adapterbench.core.errors import UserError
from adapterbench.scoring.clip import Judge, load_judge, score_references, score_samples

KEYS = ["blue-frame", "red-diamond", "green-frame"]
"""The sampled items, in the order of the tar."""
SHOWN = {
    ("blue-frame", 0): ("ring", "red"),
    ("blue-frame", 1): ("frame", "blue"),
    ("red-diamond", 0): ("bar", "green"),
    ("red-diamond", 1): ("zigzag", "blue"),
    ("green-frame", 0): ("circle", "red"),
    ("green-frame", 1): ("square", "green"),
}
"""What each picture shows in place of what a method would have made."""
CAPTIONS = {s.key: s.captions[0] for s in toy_samples()}


@pytest.fixture(scope="module")
def judge(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    params = ScoreParams(encoder=toy.evaluator, pretrained=None, batch_size=4)
    return load_judge(params, toy.shards, write_samples(tmp_path_factory.mktemp("samples")))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path)


def write_samples(root: Path) -> Path:
    """The tars of one method; `image_text` shows the same pictures mirrored."""
    folder = root / "method"
    folder.mkdir()
    for protocol in ("image", "image_text"):
        with wds.TarWriter(str(folder / f"{protocol}.tar"), encoder=False) as tar:
            for (key, k), shown in SHOWN.items():
                image = made(shown, protocol)
                file = io.BytesIO()
                image.save(file, "PNG")
                tar.write({"__key__": key, f"{k}.png": file.getvalue()})
    return folder


def made(shown: tuple[str, str], protocol: str) -> Image.Image:
    image = picture(*shown)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    return turned if protocol == "image_text" else image


class Reference:
    """open_clip alone."""

    def __init__(self, toy: Toy) -> None:
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(toy.evaluator)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(toy.evaluator)

    @torch.no_grad()
    def image(self, image: Image.Image) -> np.ndarray:
        return self.model.encode_image(self.preprocess(image)[None])[0].double().numpy()

    @torch.no_grad()
    def text(self, text: str) -> np.ndarray:
        return self.model.encode_text(self.tokenizer([text]))[0].double().numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_scores_are_the_cosines_of_open_clip(
    judge: Judge, samples: Path, toy: Toy, tmp_path: Path
) -> None:
    frame = score_samples(judge, samples, tmp_path / "out.parquet")
    clip = Reference(toy)
    rows: list[dict[str, Any]] = []
    for protocol in ("image", "image_text"):
        for (key, k), shown in SHOWN.items():
            other = KEYS[(KEYS.index(key) + 1) % 3]
            generated = clip.image(made(shown, protocol))
            own, others = (picture(*name.split("-")[::-1]) for name in (key, other))
            rows.append(
                {
                    "protocol": protocol,
                    "key": key,
                    "k": k,
                    "clip_t": cosine(generated, clip.text(CAPTIONS[key])),
                    "clip_i": cosine(generated, clip.image(own)),
                    "clip_t_shuffled": cosine(generated, clip.text(CAPTIONS[other])),
                    "clip_i_shuffled": cosine(generated, clip.image(others)),
                }
            )
    expected = pd.DataFrame(rows)
    pd.testing.assert_frame_equal(frame, expected, rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), frame)
    assert expected["clip_i"].std() > 1e-3  # else anything would pass


def test_a_perfect_copy_scores_1(judge: Judge, samples: Path, tmp_path: Path) -> None:
    frame = score_samples(judge, samples, tmp_path / "out.parquet")
    copies = frame[(frame.protocol == "image") & (frame.key == "blue-frame") & (frame.k == 1)]
    assert copies["clip_i"].tolist() == pytest.approx([1.0], abs=1e-6)


def test_the_reference_scores_1_on_the_same_items(
    judge: Judge, samples: Path, toy: Toy, tmp_path: Path
) -> None:
    frame = score_references(judge, samples, tmp_path / "reference.parquet")
    assert frame["key"].tolist() == KEYS
    assert frame["k"].tolist() == [0, 0, 0]
    assert frame["clip_i"].tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    clip = Reference(toy)
    expected = [
        cosine(clip.image(picture(*key.split("-")[::-1])), clip.text(CAPTIONS[key])) for key in KEYS
    ]
    assert frame["clip_t"].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_batch_size_changes_no_score(judge: Judge, samples: Path, toy: Toy) -> None:
    frames = []
    for size in (1, 100):
        params = ScoreParams(encoder=toy.evaluator, pretrained=None, batch_size=size)
        frames.append(
            score_samples(load_judge(params, toy.shards, samples), samples, samples / "out")
        )
    pd.testing.assert_frame_equal(*frames, rtol=0, atol=1e-6)
    assert judge.captions.keys() == judge.references.keys() == set(KEYS)  # and no other item


def add(path: Path, name: str, data: bytes) -> None:
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("damage", ["cut", "cut between members", "garbage", "empty", "picture",
                                    "half a picture", "name", "number", "folder"])  # fmt: skip
def test_a_damaged_tar_is_one_line(judge: Judge, samples: Path, damage: str) -> None:
    path = samples / "image.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        boundary = tar.getmembers()[2].offset
    png = io.BytesIO()
    picture("ring", "red").save(png, "PNG")
    match damage:
        case "cut":
            path.write_bytes(data[:2000])
        case "cut between members":
            path.write_bytes(data[:boundary])
        case "garbage":
            path.write_bytes(b"x" * 5000)
        case "empty":
            path.write_bytes(b"")
        case "picture":
            add(path, "blue-frame.2.png", b"oops")
        case "half a picture":
            add(path, "blue-frame.2.png", png.getvalue()[:90])
        case "name":
            add(path, "README", b"hello")
        case "number":
            add(path, "blue-frame.x.png", png.getvalue())
        case "folder":
            with tarfile.open(path, "a") as tar:
                info = tarfile.TarInfo("a.0.png")
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
    out = samples.parent / "out.parquet"
    with pytest.raises(UserError, match=r"image\.tar is damaged .*dvc repro sample@method"):
        score_samples(judge, samples, out)
    assert not out.exists()


def test_a_picture_of_no_item_is_one_line(judge: Judge, samples: Path) -> None:
    file = io.BytesIO()
    picture("ring", "red").save(file, "PNG")
    add(samples / "image.tar", "red-ring.0.png", file.getvalue())  # an item of training
    with pytest.raises(UserError, match="red-ring is not a validation item"):
        score_samples(judge, samples, samples.parent / "out.parquet")


@pytest.mark.parametrize("score", [score_samples, score_references])
def test_no_samples_are_one_line(judge: Judge, tmp_path: Path, score: Any) -> None:
    with pytest.raises(UserError, match="holds no samples"):
        score(judge, tmp_path, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []
