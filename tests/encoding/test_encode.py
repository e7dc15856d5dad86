"""The encoded shards against direct calls of the encoders; runs that were killed; bad shards."""

import errno
import io
import json
import logging
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from toy_backbone import Toy, toy_samples

import adapterbench.data.prepare as preparing
import adapterbench.encoding.shards as module
from adapterbench.core.config import DataParams, Fit, Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, read_json, sha256, write_json
from adapterbench.data.sample import SPLITS, RawSample, read_tar
from adapterbench.encoding import captions, reading
from adapterbench.encoding.encoders import Encoders, load_encoders
from adapterbench.encoding.shards import encode
from adapterbench.exchange.pipeline import load_adapter
from adapterbench.formats import encoded as storage
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.image import to_array, to_png
from adapterbench.formats.shards import Sample, Shard, find_shards, open_shard, read_split
from adapterbench.runs import workers

HALF: dict[str, Any] = {"atol": 2e-3, "rtol": 2e-3}
"""Rounding of fp16."""


@pytest.fixture(params=["train", "validation"])
def split(request: pytest.FixtureRequest, toy: Toy) -> tuple[EncodedSplit, list[Sample]]:
    return EncodedSplit(toy.encoded, request.param), list(read_split(toy.shards, request.param))


@pytest.fixture
def own(toy: Toy, tmp_path: Path) -> Toy:
    """A project of the test's own, where shards may be damaged."""
    shutil.copytree(toy.shards, tmp_path / "shards")
    shutil.copytree(toy.backbone, tmp_path / "backbone")
    return Toy(tmp_path)


def run(toy: Toy) -> dict[str, Any]:
    return encode(toy.encode_params, toy.shards, toy.backbone, toy.encoded)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace_images(path: Path, bad: Callable[[str], bool]) -> None:
    """Overwrite the images of a shard whose names are `bad`."""
    before = sha256(path)
    with tarfile.open(path) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            broken = member.name.endswith(".png") and bad(member.name)
            member.size = 4 if broken else len(data)
            tar.addfile(member, io.BytesIO(b"oops" if broken else data))
    manifest = path.with_name(MANIFEST)  # as if the images had come so
    manifest.write_text(manifest.read_text().replace(before, sha256(path)))


def test_samples_keep_their_order(split: tuple[EncodedSplit, list[Sample]]) -> None:
    encoded, samples = split
    assert encoded.samples == [
        {"key": s.key, "concept": s.meta["concept"], "captions": [*s.captions]} for s in samples
    ]


@torch.no_grad()
def test_latents_are_the_scaled_modes_of_the_vae(
    split: tuple[EncodedSplit, list[Sample]], pipeline: StableDiffusionPipeline
) -> None:
    encoded, samples = split
    pixels = pipeline.image_processor.preprocess([sample.image for sample in samples])
    expected = pipeline.vae.encode(pixels).latent_dist.mean * 0.5
    ours = torch.stack([encoded.row(number)[0] for number in range(len(encoded))])
    assert ours.dtype == torch.float16
    torch.testing.assert_close(ours.float(), expected, **HALF)


@torch.no_grad()
def test_image_embeddings_are_those_of_open_clip(
    split: tuple[EncodedSplit, list[Sample]], toy: Toy
) -> None:
    encoded, samples = split
    name = toy.image_encoder
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    expected = model.encode_image(torch.stack([preprocess(s.image) for s in samples]))
    ours = torch.stack([encoded.row(number)[1] for number in range(len(encoded))])
    torch.testing.assert_close(ours.float(), expected, **HALF)
    assert encoded.embed_dim == expected.shape[1] == 24


def test_texts_are_the_pipelines_prompt_embeddings(
    split: tuple[EncodedSplit, list[Sample]], pipeline: StableDiffusionPipeline
) -> None:
    encoded, samples = split
    for number, sample in enumerate(samples):
        expected, _ = pipeline.encode_prompt(list(sample.captions), "cpu", 1, False)
        draws = torch.arange(12) / 12
        drawn = encoded.gather(torch.full((12,), number), draws).texts
        which = (drawn[:, None] - expected).abs().amax(dim=(2, 3)).argmin(dim=1)
        torch.testing.assert_close(drawn, expected[which], **HALF)
        assert which.unique().tolist() == list(range(len(sample.captions)))
    empty, _ = pipeline.encode_prompt("", "cpu", 1, False)
    torch.testing.assert_close(encoded.empty, empty[0], **HALF)


@pytest.mark.parametrize("text", ["", "unseen ✨ words, " * 30, "Ünïcödé 漢字"])
def test_any_text_is_embedded_as_the_pipeline_does(
    toy: Toy, pipeline: StableDiffusionPipeline, text: str
) -> None:
    ours = load_encoders(toy.encode_params, toy.backbone).texts([text])
    expected, _ = pipeline.encode_prompt(text, "cpu", 1, False)
    torch.testing.assert_close(ours, expected)


def test_the_manifest_names_each_file_with_its_digest(toy: Toy) -> None:
    manifest = read_json(toy.encoded / MANIFEST)
    rows = [row for rows in manifest["splits"].values() for row in rows]
    files = {row["name"]: row["sha256"] for row in rows}
    files |= {row["index"]: row["index_sha256"] for row in rows}
    files |= {row["name"]: row["sha256"] for row in (*manifest["texts"], manifest["common"])}
    assert files.keys() | {MANIFEST} == contents(toy.encoded).keys()
    assert files == {name: sha256(toy.encoded / name) for name in files}
    assert [row["samples"] for row in manifest["splits"]["train"]] == [7, 7, 4]
    assert all(row["skipped"] == [] for row in rows)


@pytest.mark.usefixtures("workplace")
def test_a_caption_is_embedded_once_whatever_splits_and_shards_say_it(
    own: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    texts = Encoders.texts

    def counted(self: Encoders, captions: list[str]) -> torch.Tensor:
        embedded.extend(captions)
        return texts(self, captions)

    monkeypatch.setattr(Encoders, "texts", counted)
    # a second split that says what the first one says
    manifest = read_json(own.shards / MANIFEST)
    shutil.copy(own.shards / "train-00000.tar", own.shards / "again-00000.tar")
    again = {**manifest["splits"]["train"]["shards"][0], "name": "again-00000.tar"}
    manifest["splits"]["again"] = {"shards": [again]}
    write_json(own.shards / MANIFEST, manifest)
    run(own)
    said = [s.captions for split in manifest["splits"] for s in read_split(own.shards, split)]
    distinct = list(dict.fromkeys(text for texts in said for text in texts))
    assert embedded == [*distinct, ""]
    one, two = (EncodedSplit(own.encoded, split) for split in ("train", "again"))
    assert torch.equal(one.row(3)[2], two.row(3)[2])


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("size", [1, 5, 7, 1000])
def test_captions_are_found_in_whichever_file(
    own: Toy, toy: Toy, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(captions, "CAPTIONS_PER_FILE", size)
    run(own)
    files = sorted(own.encoded.glob("texts-*.safetensors"))
    rows = [len(load_file(path)["texts"]) for path in files]
    assert set(rows[:-1]) <= {size}
    for split in ("train", "validation"):
        ours, expected = EncodedSplit(own.encoded, split), EncodedSplit(toy.encoded, split)
        for number in range(len(ours)):
            for draw in (0.0, 0.5, 0.99):
                text = ours.row(number, draw)[2].float()
                torch.testing.assert_close(text, expected.row(number, draw)[2].float(), **HALF)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_killed_run_keeps_its_finished_shards(
    own: Toy, toy: Toy, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """It is killed with file `stop` half-written (5: captions); the next run makes the rest."""
    saved: list[Path] = []

    def dies(tensors: Any, path: Path) -> None:
        saved.append(path)
        save_file(tensors, path)
        if len(saved) == stop:
            path.write_bytes(path.read_bytes()[:100])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "save_file", dies)
        with pytest.raises(KeyboardInterrupt):
            run(own)
    assert not own.encoded.exists()

    one_shard, done = module.encode_shard, []

    def counted(shard: Shard, *others: Any) -> None:
        done.append(shard.path.name)
        one_shard(shard, *others)

    monkeypatch.setattr(module, "encode_shard", counted)
    run(own)
    shards = ["train-00000.tar", "train-00001.tar", "train-00002.tar", "validation-00000.tar"]
    assert done == shards[stop - 1 :]
    assert contents(own.encoded) == contents(toy.encoded)  # which was never interrupted
    assert list(Path(".resume").iterdir()) == []


@pytest.mark.usefixtures("workplace")
def test_another_backbone_starts_afresh(own: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    one_shard, done = module.encode_shard, []

    def second_dies(shard: Shard, *others: Any) -> None:
        done.append(shard.path.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        one_shard(shard, *others)

    monkeypatch.setattr(module, "encode_shard", second_dies)
    with pytest.raises(KeyboardInterrupt):
        run(own)
    weights = own.backbone / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    run(own)
    assert done[2:] == [f"train-{n:05d}.tar" for n in range(3)] + ["validation-00000.tar"]


@pytest.mark.usefixtures("workplace")
def test_a_corrupt_image_is_skipped_and_counted(own: Toy, caplog: pytest.LogCaptureFixture) -> None:
    replace_images(own.shards / "train-00000.tar", lambda name: name == "green-circle.png")
    with caplog.at_level(logging.WARNING):
        manifest = run(own)
    assert manifest["splits"]["train"][0]["skipped"] == [
        {"key": "green-circle", "cause": "not a readable image"}
    ]
    assert "green-circle" in caplog.text
    encoded = EncodedSplit(own.encoded, "train")
    assert len(encoded) == 17
    keys = [sample["key"] for sample in encoded.samples]
    assert "green-circle" not in keys
    assert keys[:2] == ["red-circle", "blue-circle"]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "train-00001.tar is missing"),
        ("cut", "train-00001.tar is truncated or damaged"),
        ("all corrupt", "train-00001.tar has no readable image"),
        ("no manifest", "manifest.json is missing"),
        ("no backbone", "model_index.json is missing"),
    ],
)
def test_bad_input_is_one_line_and_publishes_nothing(own: Toy, damage: str, message: str) -> None:
    shard = own.shards / "train-00001.tar"
    match damage:
        case "missing":
            shard.unlink()
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-10240])
        case "all corrupt":
            replace_images(shard, lambda _: True)
        case "no manifest":
            (own.shards / MANIFEST).unlink()
        case "no backbone":
            shutil.rmtree(own.backbone)
    with pytest.raises(UserError) as caught:
        run(own)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not own.encoded.exists()


@pytest.mark.usefixtures("workplace")
def test_a_full_disk_publishes_nothing_and_keeps_what_is_done(
    own: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "link_or_copy", full)
        with pytest.raises(OSError, match="No space"):
            run(own)
    assert not own.encoded.exists()
    assert not list(own.root.glob(".encoded*"))  # nothing half-written beside it
    monkeypatch.setattr(module, "encode_shard", lambda *_: pytest.fail("encoded again"))
    run(own)
    assert len(EncodedSplit(own.encoded, "train")) == 18


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a stage has that reads more."""
    monkeypatch.setattr(workers, "MAX_INLINE", 0)
    monkeypatch.setattr(workers, "cores", lambda: 2)


MAIN = os.getpid()


@pytest.mark.usefixtures("workplace", "two_workers")
def test_workers_encode_the_same_bytes(own: Toy, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def array(image: Image.Image) -> np.ndarray:
        assert os.getpid() != MAIN
        return to_array(image)

    monkeypatch.setattr(reading, "to_array", array)
    run(own)
    assert contents(own.encoded) == contents(toy.encoded)


@pytest.mark.usefixtures("workplace", "two_workers")
def test_a_killed_worker_is_one_line_and_the_rest_is_kept(
    own: Toy, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed as the system kills what takes too much memory, at the third shard."""

    def deadly(shard: Shard) -> Any:
        if shard.path.stem == "train-00002":
            os.kill(os.getpid(), signal.SIGKILL)
        return open_shard(shard)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "open_shard", deadly)
        with pytest.raises(UserError, match="a worker process was killed") as caught:
            run(own)
    assert "\n" not in str(caught.value)
    assert not own.encoded.exists()
    assert not list(own.root.glob(".encoded*"))
    run(own)
    assert contents(own.encoded) == contents(toy.encoded)


@pytest.mark.usefixtures("workplace", "two_workers")
def test_bad_input_that_a_worker_meets_is_one_line(own: Toy) -> None:
    shard = own.shards / "train-00001.tar"
    shard.write_bytes(shard.read_bytes()[:-10240])
    with pytest.raises(UserError, match=r"train-00001.tar is truncated or damaged") as caught:
        run(own)
    assert "\n" not in str(caught.value)


def pack_raw(raw: Path) -> None:
    """Toy images as JPEGs of another shape in two tars, as a hub has them, and a damaged one."""
    raw.mkdir()
    for number in range(2):
        with tarfile.open(raw / f"{number}.tar", "w") as tar:
            for sample in list(toy_samples())[number::2]:
                wide = sample.image.resize((50, 40))
                wide.putpixel((1, 1), (number, 9, 9))
                file = io.BytesIO()
                wide.save(file, "JPEG", quality=95)
                parts = {"jpg": file.getvalue(), "txt": sample.captions[0].encode()}
                for kind, data in parts.items():
                    member = tarfile.TarInfo(f"{sample.key}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def prepare_raw(folder: Path, placed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage `prepare` over `folder/raw`, by listing or by packing."""

    def read(raw: Path, _: Section) -> Iterator[RawSample]:
        for tar in sorted(raw.glob("*.tar")):
            for sample in read_tar(tar):
                yield sample if placed else replace(sample, tar=None, place=None)

    stand_in = SimpleNamespace(read=read, Params=Section, ATTRIBUTION={})
    monkeypatch.setattr(preparing, "load", lambda *_: stand_in)
    values: dict[str, Any] = {
        "source": "tars",
        "fetch": {},
        "resolution": 32,
        "split": "concepts",
        "seed": 0,
    }
    rest: dict[str, Any] = {"held_out": None, "images_per_concept": None}
    params = DataParams(**values, **rest, validation_concepts=6, samples_per_shard=7)
    preparing.prepare(params, folder / "raw", folder / "shards")


@pytest.mark.usefixtures("workplace", "two_workers")
def test_listed_and_packed_images_give_the_same_bytes(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    projects = {}
    for name, placed in (("listed", True), ("packed", False)):
        projects[name] = Toy(tmp_path / name)
        projects[name].root.mkdir()
        projects[name].backbone.symlink_to(toy.backbone)
        pack_raw(projects[name].root / "raw")
        prepare_raw(projects[name].root, placed, monkeypatch)
        encode(toy.encode_params, projects[name].shards, toy.backbone, projects[name].encoded)
    kinds = {n: {p.suffix for p in each.shards.glob("train*")} for n, each in projects.items()}
    assert kinds == {"listed": {".json"}, "packed": {".tar"}}
    assert contents(projects["listed"].encoded) == contents(projects["packed"].encoded)
    assert len(EncodedSplit(projects["listed"].encoded, "train")) == 18


@pytest.mark.usefixtures("workplace", "two_workers")
def test_a_tar_that_changed_under_its_listing_is_one_line(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_raw(tmp_path / "raw")
    prepare_raw(tmp_path, True, monkeypatch)
    tar = tmp_path / "raw/1.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1  # in its first image
    tar.write_bytes(data)
    with pytest.raises(UserError, match=r"raw/1\.tar has changed since its images") as caught:
        encode(toy.encode_params, tmp_path / "shards", toy.backbone, tmp_path / "encoded")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "encoded").exists()


@torch.no_grad()
def test_patches_are_those_of_the_last_layer_but_one(toy: Toy, patches: Toy) -> None:
    """Read by a hook of the layer, before the last norm; those of a zero image likewise."""
    model, _, preprocess = open_clip.create_model_and_transforms(toy.image_encoder)
    model.eval()
    outputs: list[torch.Tensor] = []
    blocks = model.visual.transformer.resblocks
    blocks[len(blocks) - 2].register_forward_hook(lambda _, __, out: outputs.append(out))
    samples = list(read_split(toy.shards, "validation"))
    pixels = torch.stack([preprocess(sample.image) for sample in samples])
    model.encode_image(torch.cat([pixels, torch.zeros_like(pixels[:1])]))
    *expected, zero = outputs[0]
    encoded = EncodedSplit(patches.encoded, "validation", patches=True)
    assert len(expected) == len(encoded) == 6
    for number, features in enumerate(expected):
        stored = encoded.row(number)[1]
        assert stored.dtype == torch.float16
        assert stored.shape == (5, 32)  # the class token, and 2 x 2 patches
        torch.testing.assert_close(stored.float(), features, **HALF)
    torch.testing.assert_close(encoded.unconditional, zero, **HALF)


def test_patches_are_stored_only_if_asked_for(toy: Toy, patches: Toy) -> None:
    added = {"train": {"patches"}, "validation": {"patches"}, "common": {"zero_patches"}}
    for path in toy.encoded.glob("*.safetensors"):
        plain, more = load_file(path), load_file(patches.encoded / path.name)
        assert more.keys() - plain.keys() == added.get(path.stem.partition("-")[0], set())
        assert all(torch.equal(plain[name], more[name]) for name in plain)
    assert torch.equal(EncodedSplit(toy.encoded, "train").unconditional, torch.zeros(24))
    with pytest.raises(UserError, match=r"no patch features: set encode\.patches = true"):
        EncodedSplit(toy.encoded, "train", patches=True)


def wide(image: Image.Image) -> Image.Image:
    """The image twice as wide, its right half inverted."""
    both = Image.new("RGB", (2 * image.width, image.height))
    both.paste(image)
    both.paste(ImageOps.invert(image), (image.width, 0))
    return both


def widen(raw: Path) -> None:
    """Make the images of the tars wide, the first one too elongated for tiles."""
    shutil.rmtree(raw)
    raw.mkdir()
    with tarfile.open(raw / "1.tar", "w") as tar:
        for number, sample in enumerate(toy_samples()):
            image = wide(sample.image) if number else sample.image.resize((32 * 20, 32))
            files = {
                "png": to_png(image),
                "txt": sample.captions[0].encode(),
                "json": json.dumps({"concept": sample.meta["concept"]}).encode(),
            }
            for kind, data in files.items():
                info = tarfile.TarInfo(f"{sample.key}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def wide_images(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A project of listed images that are not square, not encoded yet."""
    project = Toy(tmp_path / "wide")
    project.root.mkdir()
    project.backbone.symlink_to(toy.backbone)
    (project.root / "raw").mkdir()
    widen(project.root / "raw")
    prepare_raw(project.root, True, monkeypatch)
    return project


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("fit", ["pad", "tiles"])
def test_a_fit_is_that_of_load_adapter(
    wide_images: Toy, fit: Fit, pipeline: StableDiffusionPipeline, toy: Toy
) -> None:
    image_prompt = load_adapter(pipeline, toy.adapter, image_encoder=toy.image_encoder, fit=fit)
    image_prompt.detach()
    params = toy.encode_params.model_copy(update={"fit": fit, "patches": True, "batch_size": 5})
    whole = {
        sample.key: wide(sample.image) if number else sample.image.resize((32 * 20, 32))
        for number, sample in enumerate(toy_samples())
    }
    encoders = load_encoders(params, toy.backbone)
    shards = [s for split in SPLITS for s in find_shards(wide_images.shards, split)]
    seen = 0
    for images in reading.read_batches(shards, 5, encoders.clip.preprocess, fit):
        prompts = encoders.image_prompts(images)
        for embeds, row in zip(prompts["image_embeds"], images.rows, strict=True):
            expected = image_prompt.encode(whole[row["key"].removeprefix("1-")])[0]
            torch.testing.assert_close(embeds, expected, atol=1e-6, rtol=0)
            seen += 1
        assert prompts["patches"].shape == (len(images.rows), 5, 32)
    skipped = [key for key in whole if fit == "tiles" and whole[key].width == 640]
    assert seen == sum(shard.samples for shard in shards) - len(skipped)


@pytest.mark.usefixtures("workplace")
def test_a_fit_is_of_the_image_encoder_alone(
    wide_images: Toy, toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    """Latents are of the centre square; an image too elongated for tiles is skipped, and said."""
    splits = {}
    for fit in ("crop", "pad", "tiles"):
        params = toy.encode_params.model_copy(update={"fit": fit})
        out = wide_images.root / fit
        with caplog.at_level(logging.WARNING):
            encode(params, wide_images.shards, toy.backbone, out)
        splits[fit] = [EncodedSplit(out, split) for split in SPLITS]
    rows = {
        fit: {s["key"]: part.row(n) for part in parts for n, s in enumerate(part.samples)}
        for fit, parts in splits.items()
    }
    [elongated] = rows["crop"].keys() - rows["tiles"].keys()
    assert elongated in caplog.text
    assert "gives 20 tiles, more than 16" in caplog.text
    for key, (latents, embeds, _) in rows["tiles"].items():
        for fit in ("crop", "pad"):
            assert torch.equal(rows[fit][key][0], latents)
            assert not torch.equal(rows[fit][key][1], embeds)


@pytest.mark.usefixtures("workplace")
def test_a_fit_that_changes_nothing_says_so(own: Toy, caplog: pytest.LogCaptureFixture) -> None:
    encode(own.encode_params, own.shards, own.backbone, own.root / "crop")
    assert "encode.fit" not in caplog.text
    params = own.encode_params.model_copy(update={"fit": "tiles"})
    encode(params, own.shards, own.backbone, own.root / "tiles")
    assert "encode.fit = tiles does not change" in caplog.text
    assert contents(own.root / "crop") == contents(own.root / "tiles")
