import math
import re
import runpy
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from toy_backbone import CLIP_PARAMS, PLUS, SAMPLE, SIDE, VARIANT, toy_image
from transformers import CLIPImageProcessor

from adapterbench import load_adapter
from adapterbench.adapters.core import storage
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import load_config, save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.errors import UserError
from adapterbench.core.files import read_json
from adapterbench.exchange.ip_adapter import save_ip_adapter, to_ip_adapter
from adapterbench.frozen.load import load_clip, load_part
from adapterbench.sampling.sampler import sample

from .conftest import ROOT, Cli

if TYPE_CHECKING:
    from toy_backbone import Toy

REFERENCE = toy_image("ring", "red")
LORA = {"projection": "linear", "attention": "lora", "tokens": 4, "rank": 2}


@pytest.fixture
def pipe(toy: "Toy") -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(toy.backbone, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(torch.float32)


def generate(pipe: Any, **prompt: Any) -> torch.Tensor:
    seed = torch.Generator().manual_seed(1)
    size = {"height": SIDE, "width": SIDE, "num_inference_steps": 3, "output_type": "pt"}
    return pipe("a red ring", **{"guidance_scale": 7.5, **size, **prompt}, generator=seed).images


@pytest.mark.usefixtures("workplace")
def test_diffusers_makes_the_same_images(cli: Cli, toy: "Toy", pipe: Any) -> None:
    """To 1e-5 from the same embedding, to 1e-4 from the image, through diffusers' own loader."""
    result = cli("export", toy.adapter, "it", "--backbone", toy.backbone)
    assert result.exit_code == 0, result.output
    assert "exact" in result.stdout
    image_prompt = load_adapter(pipe, toy.adapter)
    ours = generate(pipe, **image_prompt(REFERENCE, scale=0.8))
    embeds = image_prompt(REFERENCE)["ip_adapter_image_embeds"]
    image_prompt.detach()
    base = generate(pipe)
    pipe.feature_extractor = CLIPImageProcessor.from_pretrained("it/image_encoder")
    pipe.load_ip_adapter("it", subfolder="", weight_name="ip_adapter.safetensors")
    pipe.set_ip_adapter_scale(0.8)
    theirs = generate(pipe, ip_adapter_image_embeds=embeds)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    theirs = generate(pipe, ip_adapter_image=REFERENCE)  # another encoder's rounding, guided
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    assert (ours - base).abs().max() > 1e-3


class Seeded(StableDiffusionPipeline):
    """The stock pipeline, of three steps and always from the same noise."""

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        seed = torch.Generator().manual_seed(1)
        return super().__call__(*inputs, num_inference_steps=3, generator=seed, **more)


@pytest.mark.parametrize(
    ("model", "reference"),
    [("toy", REFERENCE), ("toy", REFERENCE.resize((80, 47))), ("plus", REFERENCE)],
)
def test_the_printed_recipe_is_exact(
    model: str, reference: Image.Image, cli: Cli, toy: "Toy", workplace: Path
) -> None:
    """Run as it is printed, over diffusers alone, on an image of any size."""
    folder = toy.adapter if model == "toy" else trained_plus(toy, workplace / model)
    result = cli("export", folder, "it", "--backbone", toy.backbone)
    assert result.exit_code == 0, result.output
    pipe = Seeded.from_pretrained(toy.backbone, safety_checker=None).to(torch.float32)
    base = pipe("").images[0]
    image_prompt = load_adapter(pipe, folder)
    ours = pipe("", **image_prompt(reference)).images[0]
    image_prompt.detach()
    made: dict[str, Any] = {"pipe": pipe, "reference": reference}
    exec(result.stdout.split("\n", 1)[1], made)
    assert difference(made["image"], ours) <= 1
    assert difference(base, ours) > 20


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest of all pixels, in levels of 255."""
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def trained_plus(toy: "Toy", folder: Path) -> Path:
    """An adapter that reads patches."""
    torch.manual_seed(6)
    adapter = build_adapter(parse_variant(PLUS), load_part(toy.backbone, "unet"), 0)
    for branch in adapter.layers.values():
        torch.nn.init.normal_(branch.get_parameter("to_v.weight"), std=0.3)
    save_adapter(adapter, folder, parse_variant(PLUS), {})
    return folder


@pytest.mark.parametrize("name", ["it.safetensors", "it.bin"])
def test_one_file_for_other_programs_and_back(
    name: str, cli: Cli, toy: "Toy", pipe: Any, workplace: Path
) -> None:
    options = ("--format", "ip-adapter", "--backbone", toy.backbone)
    assert cli("export", toy.adapter, name, *options).exit_code == 0
    pipe.load_ip_adapter(str(workplace), subfolder="", weight_name=name, image_encoder_folder=None)

    result = cli("adopt", name, "outside", "--backbone", toy.backbone)
    assert result.exit_code == 0, result.output
    variant = {"projection": "linear", "attention": "decoupled", "tokens": 4}
    assert yaml.safe_load(result.stdout) == {"outside": variant}
    assert load_config(Path("models/outside")).variant == variant
    ours = (toy.adapter / "adapter.safetensors").read_bytes()
    assert Path("models/outside/adapter.safetensors").read_bytes() == ours
    costs = read_json(Path("metrics/train/outside.json"))
    assert costs["train_seconds"] is None
    assert costs["trainable_params"] > 0
    assert pd.api.types.is_float_dtype(pd.read_csv("metrics/train/outside.csv")["loss"])


@pytest.mark.usefixtures("workplace")
def test_plus_becomes_a_row_and_leaves_again(cli: Cli, toy: "Toy", pipe: Any) -> None:
    """As an outside checkpoint comes: sampled like the others, and diffusers draws the same."""
    unet = load_part(toy.backbone, "unet")
    adapter = storage.load_adapter(trained_plus(toy, Path("plus")), unet)
    save_ip_adapter(to_ip_adapter(adapter, unet, "resampler"), Path("plus.bin"))
    encoder = toy.image_encoder
    over = ("--backbone", toy.backbone)
    result = cli("adopt", "plus.bin", "theirs", *over, "--image-encoder", encoder)
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout) == {"theirs": {**PLUS, "image_encoder": encoder}}

    params = SAMPLE.model_copy(update={"batch_size": 4})
    inputs = (params, toy.encoded, toy.backbone, Path("models/theirs"), ["image"])
    own = parse_variant({**PLUS, "image_encoder": encoder})
    assert sample(*inputs, Path("samples/theirs"), toy.shards, own) == 2

    named = ("--image-encoder", encoder)
    assert cli("export", "models/theirs", "it", *over, *named).exit_code == 0
    image_prompt = load_adapter(pipe, "models/theirs", image_encoder=encoder)
    ours = generate(pipe, **image_prompt([REFERENCE], scale=0.8))
    patches = image_prompt.encode(REFERENCE)
    assert torch.equal(ours, generate(pipe, **image_prompt(patches[0], scale=0.8)))
    embeds = image_prompt(REFERENCE)["ip_adapter_image_embeds"]
    image_prompt.detach()
    base = generate(pipe)
    pipe.feature_extractor = CLIPImageProcessor.from_pretrained("it/image_encoder")
    pipe.load_ip_adapter("it", subfolder="", weight_name="ip_adapter.safetensors")
    pipe.set_ip_adapter_scale(0.8)
    theirs = generate(pipe, ip_adapter_image_embeds=embeds)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    theirs = generate(pipe, ip_adapter_image=REFERENCE)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    assert (ours - base).abs().max() > 1e-3


@pytest.fixture
def stranger(toy: "Toy", workplace: Path) -> Path:
    """An adapter that names an image encoder, as one of a download may name anything."""
    folder = workplace / "models" / "stranger"
    adapter = storage.load_adapter(toy.adapter, load_part(toy.backbone, "unet"))
    variant = storage.load_variant(toy.adapter)
    save_adapter(adapter, folder, variant, {}, image_encoder=toy.evaluator, pretrained="tag")
    return folder


def test_an_adapter_does_not_decide_what_is_loaded(
    cli: Cli, toy: "Toy", pipe: Any, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it names is told in the error, and loaded where the caller names it."""

    def loads(name: str, pretrained: str | None) -> Any:
        loaded.append((name, pretrained))
        return load_clip(toy.evaluator, None)

    loaded: list[tuple[str, str | None]] = []
    for module in ("exchange.reader", "sampling.prompts", "frozen.load"):
        monkeypatch.setattr(f"adapterbench.{module}.load_clip", loads)
    hint = f"image_encoder {toy.evaluator!r}, pretrained 'tag'"
    image_prompt = load_adapter(pipe, stranger)
    with pytest.raises(UserError, match=f"{re.escape(toy.evaluator)}.*'tag'"):
        image_prompt(REFERENCE)
    image_prompt(torch.zeros(CLIP_PARAMS.embed_dim))
    image_prompt.detach()

    result = cli("export", stranger, "it", "--backbone", toy.backbone)
    assert result.exit_code == 1
    assert hint in result.stderr
    assert not Path("it").exists()

    inputs = (SAMPLE, toy.encoded, toy.backbone, stranger, ["image"], Path("samples/it"))
    for row in ({}, {"image_encoder": "other"}, {"image_encoder": toy.evaluator}):
        with pytest.raises(UserError, match=re.escape(hint)):
            sample(*inputs, toy.shards, parse_variant({**VARIANT, **row}))
    assert loaded == []

    load_adapter(pipe, stranger, image_encoder=toy.evaluator, pretrained="p")(REFERENCE)
    named = ("--image-encoder", toy.evaluator, "--pretrained", "q")
    assert cli("export", stranger, "it", "--backbone", toy.backbone, *named).exit_code == 0
    tagged = {**VARIANT, "image_encoder": toy.evaluator, "pretrained": "tag"}
    sample(*inputs, toy.shards, parse_variant(tagged))
    assert loaded == [(toy.evaluator, tag) for tag in ("p", "q", "tag")]


@pytest.fixture
def lora(toy: "Toy", workplace: Path) -> Path:
    """A trained LoRA adapter."""
    adapter = build_adapter(
        parse_variant(LORA), load_part(toy.backbone, "unet"), CLIP_PARAMS.embed_dim
    )
    folder = workplace / "models" / "lora"
    save_adapter(adapter, folder, parse_variant(LORA), {})
    return folder


def test_lora_says_what_differs(cli: Cli, toy: "Toy", lora: Path) -> None:
    result = cli("export", lora, "it", "--backbone", toy.backbone)
    assert result.exit_code == 0, result.output
    assert "queries and outputs of the image branch are the base model's" in result.stdout
    result = cli("export", lora, "peft", "--format", "peft", "--backbone", toy.backbone)
    assert result.exit_code == 0, result.output
    assert "without the projection" in result.stdout
    assert {path.name for path in Path("peft").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@pytest.mark.parametrize(
    "row",
    [
        {"projection": "mlp", "attention": "decoupled", "hidden_layers": 1, "expansion": 2},
        {"projection": "feedforward", "attention": "append", "expansion": 2},
    ],
)
def test_the_rest_is_refused_in_one_line(
    row: dict[str, Any], cli: Cli, toy: "Toy", workplace: Path
) -> None:
    row = {**row, "tokens": 4}
    unet = load_part(toy.backbone, "unet")
    variant = parse_variant(row)
    save_adapter(build_adapter(variant, unet, 24), workplace / "it", variant, {})
    for format in ("diffusers", "ip-adapter", "peft"):
        result = cli("export", "it", "out", "--format", format, "--backbone", toy.backbone)
        assert result.exit_code == 1
        assert "from adapterbench import load_adapter" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_the_example(
    cli: Cli, toy: "Toy", workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    REFERENCE.save("reference.png")
    assert cli("export", toy.adapter, "exported", "--backbone", toy.backbone).exit_code == 0
    script = ROOT / "examples/plain_diffusers.py"
    assert sum(bool(line) for line in script.read_text().split('"""')[2].splitlines()) <= 14
    arguments = [script, toy.backbone, "exported", "reference.png", "out.png"]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    runpy.run_path(str(script), run_name="__main__")
    with Image.open(workplace / "out.png") as image:
        assert image.size == (SIDE, SIDE)


def test_what_is_written_may_be_read_by_others(cli: Cli, toy: "Toy", workplace: Path) -> None:
    """The usual permissions, whatever writes the file."""
    usual = workplace / "usual"
    usual.touch()
    over = ("--backbone", toy.backbone)
    for name in ("it.safetensors", "it.bin"):
        assert cli("export", toy.adapter, name, "--format", "ip-adapter", *over).exit_code == 0
    assert cli("export", toy.adapter, "it", *over).exit_code == 0
    assert cli("adopt", "it.bin", "mine", *over).exit_code == 0
    files = [path for path in workplace.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "adapter.safetensors"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes == {stat.S_IMODE(usual.stat().st_mode)}


def test_without_a_known_image_encoder_there_is_no_folder_for_diffusers(
    cli: Cli, toy: "Toy", toy_params: Path
) -> None:
    """It is the backbone's own, else that of params.yaml; a single file needs none."""
    bare = toy_params.parent / "bare"
    shutil.copytree(toy.backbone, bare, ignore=lambda *_: ["image_encoder", "evaluator"])
    assert cli("export", toy.adapter, "it", "--backbone", bare).exit_code == 0
    assert Path("it/image_encoder/model.safetensors").exists()
    toy_params.unlink()
    result = cli("export", toy.adapter, "other", "--backbone", bare)
    assert result.exit_code == 1
    assert "--image-encoder" in result.stderr
    named = ("--image-encoder", "ViT-B-32", "--pretrained", "openai")
    result = cli("export", toy.adapter, "other", "--backbone", bare, *named)
    assert result.exit_code == 1
    assert "width 24, those of image_encoder 'ViT-B-32'" in result.stderr
    assert not Path("other").exists()
    single = ("--format", "ip-adapter", "--backbone", bare)
    assert cli("export", toy.adapter, "it.bin", *single).exit_code == 0


def test_what_cannot_be_used_is_not_adopted(
    cli: Cli, toy: "Toy", pipe: Any, workplace: Path
) -> None:
    """Of another width than the image encoder, not finite, under a name that is taken."""

    def refused(message: str, *arguments: object) -> None:
        result = cli("adopt", *arguments, "--backbone", toy.backbone)
        assert result.exit_code == 1
        assert re.search(message, result.stderr), result.stderr
        assert len(result.stderr.splitlines()) == 1

    wide = build_adapter(parse_variant(VARIANT), pipe.unet, 1024)
    weights = to_ip_adapter(wide, pipe.unet, "linear")
    save_ip_adapter(weights, Path("wide.bin"))
    refused("width 1024, those of .* have width 24: name its", "wide.bin", "wide")
    refused("1024, those of image_encoder 'ViT-B-32'", "wide.bin", "it", "--image-encoder=ViT-B-32")
    refused("cannot load the CLIP 'nowhere'", "wide.bin", "it", "--image-encoder=nowhere")
    weights["image_proj.proj.bias"][0] = math.nan
    save_ip_adapter(weights, Path("nan.safetensors"))
    refused("image_proj.proj.bias holds what is not a finite", "nan.safetensors", "it")
    for name in ("no_prompt", "reference", "a b", "../it", "1", ""):
        refused("the name of a variant|the name of a baseline", "wide.bin", name)
    assert sorted(path.name for path in workplace.iterdir()) == ["nan.safetensors", "wide.bin"]


@pytest.mark.usefixtures("workplace")
def test_any_name_that_dvc_runs_is_adopted(cli: Cli, toy: "Toy") -> None:
    single = ("--format", "ip-adapter", "--backbone", toy.backbone)
    assert cli("export", toy.adapter, "it.bin", *single).exit_code == 0
    assert cli("adopt", "it.bin", "ip-adapter-16", "--backbone", toy.backbone).exit_code == 0
    assert load_config(Path("models/ip-adapter-16")).variant == VARIANT


def test_nothing_is_overwritten(cli: Cli, toy: "Toy", workplace: Path) -> None:
    def refused(message: str, *arguments: object) -> None:
        result = cli(*arguments, "--backbone", toy.backbone)
        assert result.exit_code == 1
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1

    (workplace / "models/mine").mkdir(parents=True)
    refused("exists already", "export", toy.adapter, workplace)
    refused("exists already", "adopt", "it.bin", "mine")
    refused("cannot be the name of a variant", "adopt", "it.bin", "../mine")
    refused("it.bin is missing", "adopt", "it.bin", "other")
    assert [path.name for path in workplace.iterdir()] == ["models"]
