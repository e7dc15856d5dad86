"""A small project after stage `score`: random images, scores like those of trained adapters."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import webdataset as wds
import yaml
from PIL import Image

from adapterbench.core.config import CompareParams
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report import layers
from adapterbench.report.measured import MeasuredOn

N, K = 40, 3
KEYS = [f"set-{n:04x}" for n in range(N)]
ILLUSTRATE: dict[str, Any] = {
    "prompts": [{"image": "cat", "text": f"text number {n} that costs $5"} for n in range(3)],
    "scales": [0, 0.5, 1.5],
    "sweep_items": 3,
    "twin_cosine": None,
    "pairs": 5,
}
PARAMS = CompareParams(bootstrap_samples=500, confidence=0.95, seed=0, labels={})

# CLIP-I over the floor: as in the original table, IP-Adapter in front and the MLP LoRA last
VARIANTS = {
    "ip_adapter": 0.21,
    "ip_adapter_mlp": 0.17,
    "ip_adapter_lora": 0.18,
    "ip_adapter_mlp_lora": 0.13,
    "uni_controlnet_global": 0.18,
    "my_sixth_row": 0.10,
}
SIZES = [20_746_752, 30_712_320, 14_307_840, 24_273_408, 11_804_160, 45_000]


def random_png(rng: np.random.Generator) -> bytes:
    """A PNG of 64 x 64 pixels: a disc on a gradient."""
    y, x = np.mgrid[:64, :64]
    disc = (x - rng.uniform(20, 44)) ** 2 + (y - rng.uniform(20, 44)) ** 2 < rng.uniform(8, 22) ** 2
    shade = np.stack([x, y, 63 - x], axis=-1) * rng.uniform(1, 4, 3)
    image = np.where(disc[..., None], rng.uniform(0, 255, 3), shade).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def scores(
    seed: int, protocol: str, clip_t: float, clip_i: float, k: int = K, shuffled: bool = True
) -> pd.DataFrame:
    """Scores about the given means; the item's own share is common to all methods.

    The neutral evaluator sees half of what CLIP-I sees.
    """
    items = np.random.default_rng(99).normal(0, 0.04, N).repeat(k)
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"protocol": protocol, "key": np.repeat(KEYS, k), "k": np.tile(np.arange(k), N)}
    )
    frame["clip_t"] = clip_t + items / 2 + rng.normal(0, 0.02, N * k)
    frame["clip_i"] = clip_i + items + rng.normal(0, 0.03, N * k)
    frame[["clip_t", "clip_i"]] = frame[["clip_t", "clip_i"]].clip(-1, 1)
    frame["neutral"] = clip_i / 2 + items + rng.normal(0, 0.03, N * k)
    frame["r_at_1"] = (rng.random(N * k) < clip_i / 2).astype(float)
    frame["diversity"] = rng.uniform(0.2, 0.4, N * k) if k > 1 else np.nan
    frame[["kid", "precision", "recall"]] = np.nan
    if shuffled:
        frame["clip_t_shuffled"] = 0.10 + rng.normal(0, 0.02, N * k)
        frame["clip_i_shuffled"] = 0.50 + rng.normal(0, 0.03, N * k)
        frame["neutral_shuffled"] = 0.25 + rng.normal(0, 0.03, N * k)
        frame["r_at_1_shuffled"] = (rng.random(N * k) < 1 / N).astype(float)
    return frame


def fill_scores(folder: Path, gains: dict[str, float] | None = None) -> None:
    """Write the parquet files of all methods; `gains` overrides leads in CLIP-I."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (variant, gain) in enumerate({**VARIANTS, **(gains or {})}.items()):
        frames = [
            scores(10 * seed, "image", 0.1 + gain / 3, 0.5 + gain),
            scores(10 * seed + 1, "image_text", 0.2 + gain / 9, 0.56 + gain),
        ]
        pd.concat(frames).to_parquet(folder / f"{variant}.parquet")
    floors = {
        "no_prompt": scores(101, "image", 0.10, 0.50, shuffled=False),
        "text_only": scores(102, "image_text", 0.21, 0.57, shuffled=False),
        "other_item": scores(104, "image", 0.05, 0.1, k=1, shuffled=False),
        "reference_16px": scores(105, "image", 0.26, 0.9, k=1, shuffled=False),
        "vae": scores(106, "image", 0.27, 0.95, k=1, shuffled=False),
        "reference": scores(103, "image", 0.27, 1.0, k=1, shuffled=False).assign(
            clip_i=1.0, neutral=1.0, r_at_1=1.0
        ),
    }
    for name, frame in floors.items():
        frame.to_parquet(folder / f"{name}.parquet")


@pytest.fixture
def write_scores() -> Callable[..., None]:
    """The function that writes the scores of all methods into a folder."""
    return fill_scores


@pytest.fixture
def params() -> CompareParams:
    """Few resamples, for speed."""
    return PARAMS


@pytest.fixture
def variants() -> list[str]:
    """Names in the order of params.yaml."""
    return list(VARIANTS)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with every input of stages compare and figures; not to be changed."""
    folder, rng = tmp_path_factory.mktemp("finished"), np.random.default_rng(0)
    fill_scores(folder / "results/scores")
    write_training(folder / "metrics/train", rng)
    images = [random_png(rng) for _ in range(N)]
    write_shards(folder / "data/shards", images)
    methods = {**dict.fromkeys(VARIANTS, tuple(PROTOCOLS)), "no_prompt": ("image",)}
    for method, protocols in {**methods, "text_only": ("image_text",)}.items():
        for protocol in protocols:
            rng.shuffle(images)
            write_samples(folder / "samples" / method / f"{protocol}.tar", images)
    write_illustrations(folder / "illustrations", images)
    write_pairs(folder / "illustrations", images)
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters()))
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project, current, to be changed at will."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_training(folder: Path, rng: np.random.Generator) -> None:
    """Records and loss curves of all variants."""
    folder.mkdir(parents=True)
    steps = np.arange(0, 2000, 10)
    for variant, size in zip(VARIANTS, SIZES, strict=True):
        record = {
            "trainable_params": size,
            "loss": 0.1,
            "steps": 2000,
            "train_seconds": size / 1e5,
            "images_per_second": 45.678,
            "peak_memory_mb": None if variant == "my_sixth_row" else 1234.5,
            "host_memory_mb": 1234.5,
            "checkpoint_mb": size * 4 / 1e6,
        }
        (folder / f"{variant}.json").write_text(json.dumps(record))
        loss = 0.12 + 0.3 * np.exp(-steps / 300) + rng.normal(0, 0.02, len(steps))
        pd.DataFrame({"step": steps, "loss": loss}).to_csv(folder / f"{variant}.csv", index=False)


def write_shards(folder: Path, images: list[bytes]) -> None:
    """Two validation shards with their manifest; one caption holds markup."""
    folder.mkdir(parents=True)
    halves = {"validation-00000.tar": KEYS[: N // 2], "validation-00001.tar": KEYS[N // 2 :]}
    for name, keys in halves.items():
        with wds.TarWriter(str(folder / name), mtime=0) as tar:
            for key in keys:
                caption = (
                    f"a cheerful cat number {key} that costs $5 and $6, three dimensional style"
                )
                tar.write(
                    {
                        "__key__": key,
                        "png": images[KEYS.index(key)],
                        "txt": caption.encode(),
                        "json": json.dumps({"captions": [caption]}).encode(),
                    }
                )
    shards = [{"name": name, "samples": len(keys)} for name, keys in halves.items()]
    manifest = {
        "attribution": {"set": "Drawn <script>alert(1)</script> by A & B, CC-BY 4.0"},
        "splits": {"validation": {"shards": shards}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_samples(path: Path, images: list[bytes], keys: list[str] = KEYS, count: int = K) -> None:
    """Images `<key>.<k>.png` of one method."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for place, key in enumerate(keys):
            for k in range(count):
                data = images[(place + k) % N]
                member = tarfile.TarInfo(f"{key}.{k}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_illustrations(folder: Path, images: list[bytes]) -> None:
    """What stage `illustrate` leaves of every variant and of the text alone."""
    for method in [*VARIANTS, "text_only"]:
        tars = ["prompts.tar", "bases/line_art.tar"]
        if method != "text_only":
            tars += [f"sweep/{scale:g}.tar" for scale in ILLUSTRATE["scales"]]
            frames = [
                scores(0, f"{scale:g}", 0.8 - scale / 3, 0.8).assign(clip_i_shuffled=scale / 3)
                for scale in ILLUSTRATE["scales"]
            ]
            (folder / method).mkdir(parents=True)
            pd.concat(frames).to_parquet(folder / method / "sweep.parquet")
        for name in tars:
            write_samples(folder / method / name, images, keys=KEYS[:3], count=1)


ANSWERS = {"restyle": ("3d style", 0), "concept": ("a word that costs $5", 5)}
"""By protocol the text of its pairs, and where its goals start among the keys."""


def write_pairs(folder: Path, images: list[bytes]) -> None:
    """What stage `illustrate` leaves of prompts with a right answer; adapters do better by turns.

    The cosines to goal and image prompt of item `n` by method number `m` are, but for the real
    images, 0.3 + m / 20 + n / 100 and 0.5; with less to go by, the former lacks 0.1.
    """
    for number, method in enumerate([*VARIANTS, "text_only"]):
        own = ["text_only"] if method == "text_only" else ["image_and_text", "image_only"]
        given = own if method == "text_only" else [*own, "shuffled_image"]
        rows = []
        for protocol, (text, start) in ANSWERS.items():
            pairs = [
                {"prompt": KEYS[n], "text": text, "goal": KEYS[start + n + 1]} for n in range(5)
            ]
            (folder / method / "pairs").mkdir(parents=True, exist_ok=True)
            (folder / method / "pairs" / f"{protocol}.json").write_text(json.dumps(pairs))
            for prompts in given:
                write_samples(
                    folder / method / "pairs" / protocol / f"{prompts}.tar",
                    images,
                    keys=KEYS[:5],
                    count=1,
                )
            less = {"image_and_text": 0.0, "real_goal": 0.0}
            rows += [
                {
                    "protocol": protocol,
                    "prompts": prompts,
                    "key": KEYS[n],
                    "goal": 0.3 + number / 20 + n / 100 - less.get(prompts, 0.1),
                    "copy": 0.5,
                    "r_at_1": float(n == 0),
                }
                for prompts in [*given, "real_goal", "real_copy"]
                for n in range(5)
            ]
        pd.DataFrame(rows).to_parquet(folder / method / "pairs.parquet")


CARRIED = {
    "up.1.attn": (2.0, 0.1, 0.2),
    "mid.attn": (0.1, 1.0, 0.8),
    "down.0.attn": (0.0, 0.0, 0.0),
}
"""By layer, mean effect on colour, shape and concept."""
NOISE = np.random.default_rng(0).normal(0, 0.3, (N, 3))


def differences(*means: float) -> pd.DataFrame:
    """Differences of N items with these means."""
    aspects = ["colour", "shape", "concept"]
    return pd.DataFrame(NOISE - NOISE.mean(axis=0) + means, columns=aspects)


def layers_table(carried: Mapping[str, tuple[float, ...]] = CARRIED) -> pd.DataFrame:
    """Effects of layers as stage `layers` makes them, with two presets checked."""
    series: dict[layers.Row, pd.DataFrame] = {(layers.ALL, "alone"): differences(4, 2, -1)}
    for layer, means in carried.items():
        series |= {(layer, effect): differences(*means) for effect in layers.EFFECTS}
    checked: dict[layers.Row, pd.DataFrame] = {
        (layers.ALL, "alone"): differences(3, 2, 1),
        ("style", "alone"): differences(2, 0, 0),
        ("layout", "alone"): differences(0, 1.5, -1),
    }
    parts = {layers.LAYERS: series, layers.CHECK: checked}
    return pd.concat([layers.effects(part, rows, PARAMS) for part, rows in parts.items()])


@pytest.fixture
def by_layer() -> pd.DataFrame:
    """Effects of the layers of an adapter."""
    return layers_table()


@pytest.fixture
def measured_project(project: Path, by_layer: pd.DataFrame) -> Path:
    """The project after stage `layers` of `ip_adapter`."""
    folder = layers.folder(project / "illustrations", "ip_adapter")
    layers.write(by_layer, folder)
    images = [random_png(np.random.default_rng(seed)) for seed in range(N)]
    for setting in (layers.ALL, "style", "layout", layers.OFF):
        write_samples(layers.image_tar(folder, setting), images, keys=KEYS[:5], count=1)
    params = parameters() | {"layers": {"variants": ["ip_adapter"], "items": 10}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    return project


def parameters() -> dict[str, object]:
    """This repository's own parameters, with the variants and resamples of these tests."""
    own = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    changed = {"compare": PARAMS.model_dump(), "illustrate": ILLUSTRATE}
    return {**own, "variants": {name: {} for name in VARIANTS}, **changed}


@pytest.fixture
def measured() -> MeasuredOn:
    """Conditions to print."""
    return MeasuredOn(
        data="emoji (set)",
        backbone="base",
        image_encoder="clip",
        evaluator="scoring clip",
        neutral_evaluator="neutral network",
        split="validation",
        items=N,
        images_per_item=K,
        train_steps=2000,
        train_batch=16,
        overridden=(),
        sampler_steps=20,
        guidance_scale=3.0,
        scale=1.0,
        confidence=0.95,
        bootstrap_samples=500,
    )
