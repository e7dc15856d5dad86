"""Scores against the networks called by hand; damaged and foreign tars."""

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import open_clip
import pandas as pd
import pytest
import timm
import torch
import webdataset as wds
from PIL import Image
from toy_backbone import SIDE, Toy, toy_image, toy_samples

from adapterbench.core.errors import UserError
from adapterbench.formats.generated import Generated, write_images
from adapterbench.formats.image import to_png
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import load_clip, load_part
from adapterbench.scoring.evaluator import Folders, load_evaluator
from adapterbench.scoring.real import real_images
from adapterbench.scoring.scores import (
    Scorer,
    load_scorer,
    score_methods,
    score_real,
    score_samples,
)

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
"""What each image shows instead of a method's output."""
CAPTIONS = {s.key: s.captions[0] for s in toy_samples()}


@pytest.fixture(scope="module")
def scorer(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    samples = write_samples(tmp_path_factory.mktemp("samples"))
    return load_scorer(toy.score_params(), toy.folders, toy.shards, samples)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path)


def write_samples(root: Path) -> Path:
    """The tars of one method; `image_text` shows the same images mirrored."""
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
    image = toy_image(*shown)
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


class Neutral:
    """timm alone."""

    def __init__(self, toy: Toy) -> None:
        self.model = timm.create_model(f"local-dir:{toy.neutral}", pretrained=True, num_classes=0)
        self.model.eval()

    @torch.no_grad()
    def image(self, image: Image.Image) -> np.ndarray:
        scaled = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        config = cast("dict[str, Any]", self.model.pretrained_cfg)
        mean, std = (config[name] for name in ("mean", "std"))
        pixels = (np.asarray(scaled) / 255 - mean) / std
        batch = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
        return self.model(batch)[0].double().numpy()


def real(key: str) -> Image.Image:
    """The reference of an item."""
    return toy_image(*key.split("-")[::-1])


def test_scores_are_those_of_the_networks_by_hand(
    scorer: Scorer, samples: Path, toy: Toy, tmp_path: Path
) -> None:
    frame = score_samples(scorer, samples, tmp_path / "out.parquet")
    clip, neutral = Reference(toy), Neutral(toy)
    rows: list[dict[str, Any]] = []
    for protocol in ("image", "image_text"):
        for (key, k), shown in SHOWN.items():
            other = KEYS[(KEYS.index(key) + 1) % 3]
            image = made(shown, protocol)
            by_clip, by_neutral = clip.image(image), neutral.image(image)
            near = {name: cosine(by_neutral, neutral.image(real(name))) for name in KEYS}
            sister = neutral.image(made(SHOWN[key, 1 - k], protocol))
            rows.append(
                {
                    "protocol": protocol,
                    "key": key,
                    "k": k,
                    "clip_t": cosine(by_clip, clip.text(CAPTIONS[key])),
                    "clip_i": cosine(by_clip, clip.image(real(key))),
                    "clip_t_shuffled": cosine(by_clip, clip.text(CAPTIONS[other])),
                    "clip_i_shuffled": cosine(by_clip, clip.image(real(other))),
                    "neutral": near[key],
                    "r_at_1": float(max(near, key=near.__getitem__) == key),
                    "neutral_shuffled": near[other],
                    "r_at_1_shuffled": float(max(near, key=near.__getitem__) == other),
                    "diversity": 1 - cosine(by_neutral, sister),
                    **dict.fromkeys(("kid", "precision", "recall"), np.nan),
                }
            )
    expected = pd.DataFrame(rows)
    pd.testing.assert_frame_equal(frame, expected, rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), frame)
    # else anything would pass
    assert expected[["clip_i", "neutral"]].std().min() > 1e-3
    assert expected["r_at_1"].nunique() == 2


def test_a_perfect_copy_scores_1(scorer: Scorer, samples: Path, tmp_path: Path) -> None:
    frame = score_samples(scorer, samples, tmp_path / "out.parquet")
    copies = frame[(frame.protocol == "image") & (frame.key == "blue-frame") & (frame.k == 1)]
    scores = copies[["clip_i", "neutral", "r_at_1"]].to_numpy().ravel().tolist()
    assert scores == pytest.approx([1.0] * 3, abs=1e-6)


def test_without_the_neutral_evaluator_its_scores_are_left_out(
    toy: Toy, samples: Path, tmp_path: Path
) -> None:
    scorer = load_scorer(toy.score_params(), toy.folders, toy.shards, samples, neutral=False)
    frame = score_samples(scorer, samples, tmp_path / "out.parquet")
    assert [name for name in frame.columns if "clip" not in name] == ["protocol", "key", "k"]


def test_real_images_have_the_scores_of_floors_and_ceilings(
    scorer: Scorer, toy: Toy, tmp_path: Path
) -> None:
    rows = real_images(scorer.references, load_part(toy.backbone, "vae"))
    frames = {n: score_real(scorer, made, tmp_path / f"{n}.parquet") for n, made in rows.items()}
    assert frames.keys() == {"reference", "vae", "reference_16px", "other_item"}
    for frame in frames.values():
        assert frame["key"].tolist() == KEYS
        assert frame["k"].tolist() == [0, 0, 0]
        assert frame["diversity"].isna().all()
    own, other = frames["reference"], frames["other_item"]
    assert own[["clip_i", "neutral", "r_at_1"]].to_numpy() == pytest.approx(1, abs=1e-6)
    assert other["r_at_1"].tolist() == [0, 0, 0]
    clip = Reference(toy)
    expected = [cosine(clip.image(real(key)), clip.text(CAPTIONS[key])) for key in KEYS]
    assert own["clip_t"].tolist() == pytest.approx(expected, abs=1e-5)
    nexts = [cosine(clip.image(real(KEYS[n])), clip.image(real(KEYS[n - 1]))) for n in (1, 2, 0)]
    assert other["clip_i"].tolist() == pytest.approx(nexts, abs=1e-5)
    # shrinking loses something, an untrained VAE nearly everything
    assert 0.5 < frames["reference_16px"]["neutral"].mean() < 0.9999
    assert frames["vae"]["neutral"].mean() < frames["reference_16px"]["neutral"].mean()


def test_all_methods_of_another_split_are_scored(toy: Toy, tmp_path: Path) -> None:
    keys = [s.key for s in read_split(toy.shards, "train")][:5]
    samples = [tmp_path / "samples" / name for name in ("one", "two")]
    for folder in samples:
        folder.mkdir(parents=True)
        images = (Generated(key, 0, to_png(toy_image("bar", "red"))) for key in keys)
        write_images(folder / "image.tar", images)
    params = toy.score_params().model_copy(update={"kid_subset_size": 1000})
    networks = toy.backbone, toy.neutral
    score_methods(params, samples, toy.shards, *networks, "train", tmp_path / "scores")
    frames = {path.stem: pd.read_parquet(path) for path in (tmp_path / "scores").iterdir()}
    assert frames.keys() == {"one", "two", "reference", "vae", "reference_16px", "other_item"}
    for frame in frames.values():
        assert frame["key"].tolist() == keys
        assert frame["kid"].notna().all()  # of subsets of five, since there are no more


def test_the_vae_row_is_what_the_vae_decodes(scorer: Scorer, toy: Toy) -> None:
    vae = load_part(toy.backbone, "vae")
    pixels = torch.from_numpy(np.asarray(scorer.references[2]).transpose(2, 0, 1)[None] / 127.5 - 1)
    with torch.no_grad():
        decoded = vae.decode(vae.encode(pixels.float()).latent_dist.mean).sample[0]
    expected = ((decoded.clamp(-1, 1) + 1) * 127.5).round().numpy().transpose(1, 2, 0)
    shown = np.asarray(real_images(scorer.references, vae)["vae"][2], dtype=float)
    np.testing.assert_allclose(shown, expected, atol=1)


def test_the_batch_size_changes_no_score(scorer: Scorer, samples: Path, toy: Toy) -> None:
    frames = []
    for size in (1, 100):
        batched = load_scorer(toy.score_params(size), toy.folders, toy.shards, samples)
        frames.append(score_samples(batched, samples, samples / "out"))
    alone, together = frames
    pd.testing.assert_frame_equal(alone, together, rtol=0, atol=1e-6)
    assert [item.key for item in scorer.items] == KEYS  # and no other item


def add(path: Path, name: str, data: bytes) -> None:
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


DAMAGES = ("cut", "cut between members", "zeros", "garbage", "empty")
SPOILT = ("image", "half an image", "name", "number", "folder")


@pytest.mark.parametrize("damage", [*DAMAGES, *SPOILT])
def test_a_damaged_tar_is_one_line(scorer: Scorer, samples: Path, damage: str) -> None:
    path = samples / "image.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        boundary = tar.getmembers()[2].offset
    png = io.BytesIO()
    toy_image("ring", "red").save(png, "PNG")
    match damage:
        case "cut":
            path.write_bytes(data[:2000])
        case "cut between members":
            path.write_bytes(data[:boundary])
        case "zeros":  # over the last image
            last = data.rindex(b"ustar") // 512 * 512
            path.write_bytes(data[:last] + bytes(len(data) - last))
        case "garbage":
            path.write_bytes(b"x" * 5000)
        case "empty":
            path.write_bytes(b"")
        case "image":
            add(path, "blue-frame.2.png", b"oops")
        case "half an image":
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
    with pytest.raises(UserError, match=r"image\.tar is damaged .*: make it again"):
        score_samples(scorer, samples, out)
    assert not out.exists()


def test_an_image_of_no_item_is_one_line(scorer: Scorer, samples: Path) -> None:
    file = io.BytesIO()
    toy_image("ring", "red").save(file, "PNG")
    add(samples / "image.tar", "red-ring.0.png", file.getvalue())  # an item of training
    with pytest.raises(UserError, match="red-ring is no item of this split"):
        score_samples(scorer, samples, samples.parent / "out.parquet")


def test_the_folders_say_which_networks_score(toy: Toy, tmp_path: Path) -> None:
    clip = toy.score_params().evaluators.clip
    folders = Folders(tmp_path, toy.neutral)
    with pytest.raises(UserError, match=f"{tmp_path / 'evaluator'}"):
        load_evaluator(clip, folders, "score.evaluators.clip")
    shutil.copytree(toy.backbone / "image_encoder", tmp_path / "evaluator")
    shown = [toy_image("ring", "red")]
    by_other, by_own = (
        load_evaluator(clip, at, "score.evaluators.clip").images(shown)
        for at in (folders, toy.folders)
    )
    expected = load_clip(toy.image_encoder, None).image_embeds(shown)
    torch.testing.assert_close(by_other, torch.nn.functional.normalize(expected))
    assert not torch.allclose(by_other, by_own, atol=0.01)


def test_no_samples_are_one_line(scorer: Scorer, toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no generated images"):
        score_samples(scorer, tmp_path, tmp_path / "out.parquet")
    with pytest.raises(UserError, match="holds no generated images"):
        load_scorer(toy.score_params(), toy.folders, toy.shards, tmp_path)
    assert list(tmp_path.iterdir()) == []
