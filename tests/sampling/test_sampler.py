"""Generated images against plain diffusers, at any batch size, and after a kill."""

import errno
import shutil
import tarfile
from contextlib import chdir
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from toy_backbone import Toy

import adapterbench.sampling.sampler as module
from adapterbench.adapters.core.storage import load_adapter, load_variant, save_adapter
from adapterbench.core.config import SampleParams
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.sampling.items import choose_items, noise
from adapterbench.sampling.sampler import Sampler, sample

pytestmark = pytest.mark.usefixtures("workplace")

ITEMS, K, STEPS, GUIDANCE = 3, 2, 3, 3.0


def sample_params(**changes: Any) -> SampleParams:
    values: dict[str, Any] = {
        "items": ITEMS,
        "images_per_item": K,
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "scale": 1.0,
        "batch_size": 4,
        "mixed_precision": "no",
        "seed": 0,
    }
    return SampleParams(**values | changes)


def run(
    toy: Toy, out: str, protocols: list[str], adapter: Path | None = None, **changes: Any
) -> dict[str, np.ndarray]:
    """Sample into `out`; the images of the first protocol."""
    params = sample_params(**changes)
    made = sample(params, toy.encoded, toy.backbone, adapter, protocols, Path(out))
    images = read(Path(out, f"{protocols[0]}.tar"))
    assert made == len(images) * len(protocols)
    return images


def read(path: Path) -> dict[str, np.ndarray]:
    """Pixels by member name, in order."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {
            name: np.asarray(Image.open(BytesIO(file.read())), dtype=int)
            for name, file in files.items()
            if file
        }


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Equal up to one rounding step per pixel, which depends on the batch size."""
    assert list(a) == list(b)
    return all(np.abs(a[name] - b[name]).max() <= 1 for name in a)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def chosen(toy: Toy) -> list[tuple[int, dict[str, Any]]]:
    samples = EncodedSplit(toy.encoded, "validation").samples
    return [(number, samples[number]) for number in choose_items(samples, ITEMS, 0)]


@pytest.fixture(scope="module")
def plain(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """diffusers' own pipeline with the solver."""
    solver = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    return StableDiffusionPipeline(**{**pipeline.components, "scheduler": solver})


@pytest.fixture(scope="module")
def whole(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both protocols of the base model and of the adapter, by uninterrupted runs."""
    folder = tmp_path_factory.mktemp("whole")
    with chdir(folder):
        for name, adapter in (("base", None), ("adapter", toy.adapter)):
            run(toy, name, list(PROTOCOLS), adapter)
    return {name: folder / name for name in ("base", "adapter")}


@pytest.mark.parametrize("guidance", [GUIDANCE, 1.0])
@pytest.mark.parametrize("protocol", ["image", "image_text"])
def test_without_an_adapter_it_is_the_plain_pipeline(
    toy: Toy, plain: StableDiffusionPipeline, protocol: str, guidance: float
) -> None:
    ours = run(toy, "out", [protocol], guidance_scale=guidance)
    expected = {}
    plain.set_progress_bar_config(disable=True)
    for _, item in chosen(toy):
        for k in range(K):
            image = plain(
                item["captions"][0] if protocol == "image_text" else "",
                latents=noise(item["key"], k, 0, (4, 4, 4))[None],
                num_inference_steps=STEPS,
                guidance_scale=guidance,
            ).images[0]
            expected[f"{item['key']}.{k}.png"] = np.asarray(image, dtype=int)
    assert same(ours, expected)
    assert all(pixels.shape == (32, 32, 3) for pixels in ours.values())
    assert len({pixels.tobytes() for pixels in ours.values()}) == ITEMS * K


@torch.no_grad()
def test_with_an_adapter_it_is_guided_sampling_by_hand(
    toy: Toy, plain: StableDiffusionPipeline, whole: dict[str, Path]
) -> None:
    """Ho and Salimans 2022: empty caption and zero embedding on the unconditional side."""
    ours = read(whole["adapter"] / "image_text.tar")
    data = EncodedSplit(toy.encoded, "validation")
    unet, vae = load_part(toy.backbone, "unet"), load_part(toy.backbone, "vae")
    load_adapter(toy.adapter, unet).attach(unet)
    number, item = chosen(toy)[0]
    _, embeds, text = (part.float()[None] for part in data.row(number))
    conditions = [(data.empty[None], torch.zeros_like(embeds)), (text, embeds)]
    plain.scheduler.set_timesteps(STEPS)
    z = noise(item["key"], 1, 0, (4, 4, 4))[None]
    for t in plain.scheduler.timesteps:
        without, given = (
            unet(z, t, words, added_cond_kwargs={"image_embeds": [image[:, None]]}).sample
            for words, image in conditions
        )
        z = plain.scheduler.step(without + GUIDANCE * (given - without), t, z).prev_sample
    decoded = vae.decode(z / vae.config.scaling_factor).sample
    pixels = ((decoded[0] / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(ours[f"{item['key']}.1.png"] - pixels).max() <= 1


@pytest.mark.parametrize("protocol", ["image", "image_text"])
def test_scale_0_is_the_base_model(toy: Toy, whole: dict[str, Path], protocol: str) -> None:
    base, adapted = (read(folder / f"{protocol}.tar") for folder in whole.values())
    assert same(run(toy, "off", [protocol], toy.adapter, scale=0.0), base)
    assert not same(adapted, base)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_batch_size_changes_no_image(toy: Toy, whole: dict[str, Path], batch_size: int) -> None:
    ours = run(toy, "out", ["image"], toy.adapter, batch_size=batch_size)
    assert same(ours, read(whole["adapter"] / "image.tar"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_rounds_the_same_images(
    toy: Toy, whole: dict[str, Path], precision: str
) -> None:
    ours = run(toy, "out", ["image"], toy.adapter, mixed_precision=precision)
    full = read(whole["adapter"] / "image.tar")
    off = [np.abs(ours[name] - full[name]).mean() for name in full]
    others = [np.abs(a - b).mean() for a, b in pairwise(full.values())]
    assert 0 < max(off) < min(others) / 2


def test_two_runs_write_the_same_bytes(toy: Toy, whole: dict[str, Path]) -> None:
    run(toy, "out", list(PROTOCOLS), toy.adapter)
    assert contents(Path("out")) == contents(whole["adapter"])
    assert contents(Path("out")).keys() == {"image.tar", "image_text.tar"}
    assert list(Path(".resume").iterdir()) == []


def test_members_are_named_by_item_and_number(toy: Toy, whole: dict[str, Path]) -> None:
    expected = [f"{item['key']}.{k}.png" for _, item in chosen(toy) for k in range(K)]
    assert list(read(whole["base"] / "image.tar")) == expected


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_killed_run_goes_on(
    toy: Toy, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Batches of two: 3 for each protocol; the run dies in the batch `stop`."""
    batches: list[list[str]] = []
    make = Sampler.make

    def counted(self: Sampler, image_ids: Any, with_text: bool) -> list[Image.Image]:
        if len(batches) == stop:
            batches.append([])
            interrupt()
        batches.append([image_id.name for image_id in image_ids])
        return make(self, image_ids, with_text)

    monkeypatch.setattr(Sampler, "make", counted)
    with pytest.raises(KeyboardInterrupt):
        run(toy, "out", list(PROTOCOLS), toy.adapter, batch_size=2)
    assert not Path("out").exists()
    run(toy, "out", list(PROTOCOLS), toy.adapter, batch_size=2)
    names = [f"{number}.{k}" for number, _ in chosen(toy) for k in range(K)]
    assert [name for batch in batches for name in batch] == names * 2  # each made once
    for name in ("image.tar", "image_text.tar"):
        assert same(read(Path("out", name)), read(whole["adapter"] / name))


def test_an_image_that_was_being_written_is_made_again(
    toy: Toy, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def half(path: Path, data: bytes) -> None:
        write(path, data[:50])
        interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(KeyboardInterrupt):
            run(toy, "out", ["image"])
    assert same(run(toy, "out", ["image"]), read(whole["base"] / "image.tar"))


def test_a_full_disk_publishes_nothing_and_keeps_the_images(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, image_ids: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, f"No space left on device for {folder}, {len(image_ids)}")

    with monkeypatch.context() as patch:
        patch.setattr(module, "pack", full)
        with pytest.raises(OSError, match="No space"):
            run(toy, "out", ["image"])
    assert sorted(path.name for path in Path().iterdir()) == [".resume"]
    monkeypatch.setattr(Sampler, "make", lambda *_: pytest.fail("sampled again"))
    assert len(run(toy, "out", ["image"])) == ITEMS * K


def test_another_adapter_starts_afresh(
    toy: Toy, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "pack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(toy, "out", ["image"], toy.adapter)
    other = tmp_path / "other"
    adapter = load_adapter(toy.adapter, load_part(toy.backbone, "unet"))
    with torch.no_grad():
        adapter.trainable_parameters()[-1].zero_()
    save_adapter(adapter, other, load_variant(toy.adapter), {})
    assert not same(run(toy, "out", ["image"], other), read(whole["adapter"] / "image.tar"))


@pytest.mark.parametrize(
    "missing", ["encoded", "backbone", "backbone/scheduler", "backbone/vae", "models/toy"]
)
def test_a_missing_input_is_one_line(toy: Toy, tmp_path: Path, missing: str) -> None:
    for name in ("encoded", "backbone", "models"):
        shutil.copytree(toy.root / name, tmp_path / name)
    shutil.rmtree(tmp_path / missing)
    own = Toy(tmp_path)
    with pytest.raises(UserError, match=missing) as caught:
        run(own, "out", ["image"], own.adapter)
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_an_unknown_protocol_is_one_line(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"unknown protocol 'text' \(there are image, image_text\)"):
        run(toy, "out", ["image", "text"])
    assert list(Path().iterdir()) == []


def test_more_steps_than_the_schedule_has_are_one_line(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"sample\.steps = 1,000,000,000, but .* 1,000 timesteps"):
        run(toy, "out", ["image"], steps=10**9)
    assert not Path("out").exists()


def test_another_backbone_than_that_of_the_training_is_one_line(toy: Toy) -> None:
    adapter = load_adapter(toy.adapter, load_part(toy.backbone, "unet"))
    variant = load_variant(toy.adapter)
    save_adapter(adapter, Path("other"), variant, {"digest": "of another"})
    with pytest.raises(UserError, match="other was trained over another backbone") as caught:
        run(toy, "out", ["image"], Path("other"))
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()
    save_adapter(adapter, Path("own"), variant, {"digest": fingerprint(toy.backbone)})
    run(toy, "out", ["image"], Path("own"))


def test_two_runs_of_the_same_do_not_share_their_images(toy: Toy) -> None:
    def meanwhile(*_: Any) -> None:
        with pytest.raises(UserError, match="the same run is already in progress"):
            run(toy, "second", ["image"])
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_missing", meanwhile)
        with pytest.raises(KeyboardInterrupt):
            run(toy, "second", ["image"])
    run(toy, "second", ["image"])
    assert list(Path(".resume").iterdir()) == []


def test_too_many_items_are_one_line(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"sample\.items = 7, .* has 6"):
        run(toy, "out", ["image"], items=7)
    assert not Path("out").exists()
