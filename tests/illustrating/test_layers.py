"""What each layer carries: adapters of whose layers it is known, and the presets that follow."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toy_backbone
from diffusers import StableDiffusionPipeline
from PIL import Image
from toy_backbone import CLIP_PARAMS, COLOURS, HELD_OUT, VARIANT, Toy, toy_image

from adapterbench import load_adapter
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.config import CompareParams, LayersParams
from adapterbench.core.errors import UserError
from adapterbench.exchange.presets import read_preset
from adapterbench.formats.generated import decode_images
from adapterbench.frozen.load import load_part
from adapterbench.illustrating.layers import Inputs, Params, measure
from adapterbench.report.layers import read_table
from adapterbench.sampling.sampler import ImageId, Sampler
from adapterbench.scoring.evaluator import load_evaluator
from adapterbench.scoring.measures import cosine
from adapterbench.scoring.pixels import colour_distance, edge_f1_of

SAMPLE = toy_backbone.SAMPLE.model_copy(update={"batch_size": 2})
COMPARE = CompareParams(bootstrap_samples=200, confidence=0.95, seed=0, labels={})
ITEMS = len(HELD_OUT) * len(COLOURS)
OF_COLOUR, OF_SHAPE = 4, 1
"""Numbers of the layers that carry something, by construction."""


def params(toy: Toy, items: int = ITEMS) -> Params:
    return Params(LayersParams(variants=(), items=items), SAMPLE, toy.score_params(), COMPARE)


def saved(folder: Path, toy: Toy, row: dict[str, Any], change: Callable[[Any], None]) -> Path:
    """A fresh adapter of the toy backbone, changed and saved."""
    torch.manual_seed(4)
    variant = parse_variant(row)
    adapter = build_adapter(variant, load_part(toy.backbone, "unet"), CLIP_PARAMS.embed_dim)
    with torch.no_grad():
        change(adapter)
    save_adapter(adapter, folder, variant, {})
    return folder


def measured(toy: Toy, adapter: Path, items: int = ITEMS) -> pd.DataFrame:
    """What the stage writes of the adapter: presets beside it, the rest in `out`."""
    inputs = Inputs(toy.encoded, toy.shards, toy.folders, adapter, parse_variant(VARIANT))
    presets = adapter.with_name(f"{adapter.name}.presets.json")
    table = measure(params(toy, items), inputs, presets, adapter.with_name("out"))
    pd.testing.assert_frame_equal(read_table(adapter.with_name("out")), table)
    return table


def drawn(sampler: Sampler, image_ids: list[ImageId], _: object) -> list[Image.Image]:
    """In place of the pipeline: one layer brings the colour of the reference, one its shape."""
    assert sampler.adapter
    on = [scale == SAMPLE.scale for scale in sampler.adapter.scale.values()]
    images = []
    for image_id in image_ids:
        colour, shape = image_id.key.split("-")
        image = toy_image(shape if on[OF_SHAPE] else "bar", colour)
        if not on[OF_COLOUR]:
            grey = image.convert("L").point(lambda level: 255 if level > 250 else 60)
            image = grey.convert("RGB")
        images.append(image)
    return images


@pytest.fixture
def adapter(toy: Toy, workplace: Path) -> Path:
    return saved(workplace / "models/it", toy, VARIANT, lambda _: None)


def test_layers_that_carry_colour_or_shape_are_found(
    toy: Toy,
    adapter: Path,
    pipeline: StableDiffusionPipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sampler, "draw", drawn)
    table = measured(toy, adapter)
    image_prompt = load_adapter(pipeline, adapter, toy.backbone / "image_encoder")
    paths = list(image_prompt.adapter.layers)
    rows = table[table["part"] == "layers"].set_index(["layer", "effect", "aspect"])
    idle = [path for n, path in enumerate(paths) if n not in {OF_COLOUR, OF_SHAPE}]
    assert (rows.loc[idle, ["difference", "lo", "hi"]] == 0).all(axis=None)
    for number, aspect in {OF_COLOUR: "colour", OF_SHAPE: "shape"}.items():
        for effect in ("alone", "without", "mean"):
            found = rows.xs((paths[number], effect, aspect))
            assert found["lo"] > 0
            assert found["share"] > 0.5  # what the other one adds belongs to the whole, too
    expected = {"style": paths[OF_COLOUR], "layout": paths[OF_SHAPE]}
    for name, path in expected.items():
        image_prompt(toy_image("ring", "red"), scale=name)
        assert image_prompt.adapter.scale == {p: float(p == path) for p in paths}
    image_prompt.detach()
    document = json.loads(adapter.with_name("it.presets.json").read_text())
    assert "on 3 images" in document["method"]
    checked = table[table["part"] == "check"].set_index(["layer", "aspect"])
    for name, aspect in {"style": "colour", "layout": "shape"}.items():
        assert checked.loc[(name, aspect), "share"] == pytest.approx(1, abs=0.3)


def test_the_one_layer_that_acts_has_the_whole_effect(toy: Toy, workplace: Path) -> None:
    """Real images; the effect of all layers by a plain loop, which makes the same images."""

    def silence(adapter: Any) -> None:
        for path, branch in adapter.layers.items():
            branch.to_v.weight *= 20 if path.startswith("mid") else 0

    adapter = saved(workplace / "models/it", toy, VARIANT, silence)
    table = measured(toy, adapter, items=4)
    rows = table[table["part"] == "layers"]
    [acting] = {layer for layer in rows["layer"] if layer.startswith("mid")}
    whole = rows[rows["layer"] == "all"]["difference"].to_numpy()
    for effect in ("alone", "without", "mean"):
        of_effect = rows[rows["effect"] == effect].set_index("layer")["difference"]
        assert of_effect[acting].to_numpy() == pytest.approx(whole, abs=1e-3)
        assert of_effect.drop(index=[acting, "all"], errors="ignore").abs().max() < 1e-3

    one_each = SAMPLE.model_copy(update={"items": 4})
    sampler = Sampler(one_each, toy.encoded, toy.backbone, adapter)
    measuring, checking = sampler.image_ids()[::2], sampler.image_ids()[1::2]
    neutral = load_evaluator(toy.score_params().evaluators.neutral, toy.folders, "neutral")
    scores = {}
    for name, scale in {"all": 1.0, "off": 0.0}.items():
        assert sampler.adapter
        sampler.adapter.scale = scale
        images = sampler.make(measuring, False)
        references = [toy_image(*reversed(it.key.split("-"))) for it in measuring]
        scores[name] = [
            -colour_distance(images, references).mean(),
            edge_f1_of(images, references).mean(),
            cosine(neutral.images(images), neutral.images(references)).mean(),
        ]
        kept = decode_images(workplace / f"models/out/{name}.tar", [it.key for it in checking])
        assert all(
            map(
                np.array_equal, *(map(np.asarray, i) for i in (kept, sampler.make(checking, False)))
            )
        )
    differences = np.subtract(scores["all"], scores["off"])
    assert np.abs(differences).max() > 0.1
    assert whole == pytest.approx(differences, abs=1e-4)


def test_a_killed_run_goes_on_where_it_was(
    toy: Toy, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def interrupted(sampler: Sampler, image_ids: list[ImageId], text: object) -> list[Image.Image]:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return drawn(sampler, image_ids, text)

    monkeypatch.setattr(Sampler, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(toy, adapter)
    assert not adapter.with_name("out").exists()
    table = measured(toy, adapter)
    layers = table[table["part"] == "layers"]["layer"].nunique() - 1
    batches = (
        2 * (2 + 2 * layers) + 2 * 4
    )  # of 2 images and 1; all, off and two presets are checked
    assert calls == batches + 1
    assert not list(Path(".resume").iterdir())


def test_what_cannot_be_measured_is_one_line(toy: Toy, workplace: Path) -> None:
    row = {"projection": "linear", "attention": "append", "tokens": 2}
    append = saved(workplace / "models/append", toy, row, lambda _: None)
    inputs = Inputs(toy.encoded, toy.shards, toy.folders, append, parse_variant(row))
    for items, message in {
        ITEMS: "append: with attention 'append' .*remove the variant from layers.variants",
        ITEMS + 1: rf"layers.items = {ITEMS + 1}, but the validation split has {ITEMS}: lower it",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            measure(params(toy, items), inputs, workplace / "presets.json", workplace / "out")
        assert "\n" not in str(error.value)
    assert not (workplace / "presets.json").exists()


def test_layers_that_carry_nothing_give_no_preset(
    toy: Toy, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blank(_sampler: Sampler, image_ids: list[ImageId], _: object) -> list[Image.Image]:
        return [Image.new("RGB", (32, 32), "white") for _ in image_ids]

    monkeypatch.setattr(Sampler, "draw", blank)
    measured(toy, adapter)
    with pytest.raises(UserError, match=r"no preset 'style' \(there are none\)") as error:
        read_preset(adapter, "style")
    assert "\n" not in str(error.value)
