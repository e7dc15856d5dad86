"""From a trained adapter to a repository of the hub and back, against a server on this machine."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard, constants
from PIL import Image
from toy_backbone import SIDE, VARIANT, toy_image
from toy_hub import BAD_LICENCE, OWNER, TOKEN, Hub, point_at, serving

from adapterbench import load_adapter
from adapterbench.adapters.core import storage
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import CONFIG, WEIGHTS, save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.cli.card import GRID, SHOWN
from adapterbench.cli.card import SIDE as CELL
from adapterbench.core.files import MANIFEST, read_json, remove, write_json
from adapterbench.exchange.hub import README, REPOSITORY
from adapterbench.formats.generated import Generated, write_images
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.report.table import COLUMNS

from .conftest import ROOT, Cli

if TYPE_CHECKING:
    from toy_backbone import Toy

NAME = f"{OWNER}/it"
REFERENCE = toy_image("ring", "red")


@pytest.fixture
def server(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(workplace, monkeypatch) as running:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def project(toy: "Toy", workplace: Path) -> Path:
    """The project's root after a whole run with one row, `mine`."""
    shutil.copytree(toy.shards, "data/shards")
    manifest = read_json(toy.shards / MANIFEST) | {"attribution": {"toy": "Toys, (c) Maker, MIT"}}
    write_json(Path("data/shards") / MANIFEST, manifest)
    Path("data/backbone").symlink_to(toy.backbone)
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["variants"] = {"mine": VARIANT}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    adapter = storage.load_adapter(toy.adapter, load_part(toy.backbone, "unet"))
    facts = {"digest": fingerprint(toy.backbone)}
    save_adapter(adapter, Path("models/mine"), parse_variant(VARIANT), facts)
    names = ("mine", "no_prompt", "reference")
    rows = [row(name, at, adapter.count) for at, name in enumerate(names)]
    Path("results").mkdir()
    pd.DataFrame(rows, columns=COLUMNS).to_csv("results/comparison.csv", index=False)
    items = list(read_split(toy.shards, "validation"))
    images = [Generated(item.key, k, png(k)) for item in items for k in (0, 1)]
    write_images(Path("samples/mine/image.tar"), images)
    return workplace


def row(method: str, at: int, parameters: int) -> dict[str, Any]:
    """A row of the comparison, with numbers that are told apart."""
    numbers = {name: round(at + number / 1000, 3) for number, name in enumerate(COLUMNS)}
    texts = {"method": method, "label": method.title(), "trained": ""}
    return numbers | texts | {"trainable_params": parameters, "n": 6, "k": 2, "kid": None}


def png(k: int) -> bytes:
    """Image `k` of an item: red, then blue."""
    path = Path("one.png")
    Image.new("RGB", (SIDE, SIDE), ("red", "blue")[k]).save(path)
    data = path.read_bytes()
    path.unlink()
    return data


def exported(cli: Cli, *options: object) -> ModelCard:
    result = cli("export", "models/mine", "out", "--format", "hub", *options)
    assert result.exit_code == 0, result.output
    return ModelCard.load(Path("out") / README)


@pytest.mark.usefixtures("project")
def test_the_folder_holds_what_a_hub_shows(cli: Cli) -> None:
    card = exported(cli, "--license", "cc-by-4.0")
    assert {path.name for path in Path("out").iterdir()} == {WEIGHTS, CONFIG, README, GRID}
    for name in (WEIGHTS, CONFIG):
        assert (Path("out") / name).read_bytes() == (Path("models/mine") / name).read_bytes()
    assert card.data.to_dict() == {
        "library_name": "adapterbench",
        "license": "cc-by-4.0",
        "pipeline_tag": "text-to-image",
        "tags": ["adapterbench", "image-prompt", "ip-adapter", "stable-diffusion"],
    }
    lead = COLUMNS.index("clip_t") / 1000
    assert f"| Mine | 25,792 | {lead:.3f} [{lead + 0.001:.3f}, {lead + 0.002:.3f}] |" in card.text
    assert "| No_Prompt |" in card.text
    assert "| Reference |" not in card.text
    assert "KID" not in card.text
    for text in ("`results/comparison.csv`", "N = 6 validation items", "95%, percentile bootstrap"):
        assert text in card.text
    for text in ("Data: emoji (", ", 18 images", "`pins/emoji` (published)"):
        assert text in card.text
    assert "`image_encoder/`" in card.text
    assert card.text.endswith(
        "sets that are not in these data included:\n\n- Toys, (c) Maker, MIT\n"
    )
    assert str(Path.cwd()) not in card.content
    with Image.open(Path("out") / GRID) as grid:
        assert grid.size == (6 * CELL, 2 * CELL)
        [first, *_] = read_split(Path("data/shards"), "validation")
        assert grid.getpixel((1, 1)) == first.image.getpixel((0, 0))
        assert grid.getpixel((CELL + 1, CELL + 1)) == (255, 0, 0)
    assert "first 6 held-out items" in card.text
    assert SHOWN >= 6


@pytest.mark.usefixtures("project")
def test_what_the_project_lacks_is_left_out(cli: Cli, toy: "Toy") -> None:
    """Of an adapter that is in no table and was trained elsewhere, over a base of the hub."""
    Path("models/mine").rename("models/other")
    result = cli("export", "models/other", "out", "--format", "hub")
    assert result.exit_code == 0, result.output
    card = ModelCard.load(Path("out") / README)
    assert {path.name for path in Path("out").iterdir()} == {WEIGHTS, CONFIG, README}
    assert "## Scores" not in card.text
    assert "18 images" in card.text
    for path in ("results", "params.yaml", "data/shards"):
        remove(Path(path))
    result = cli("export", toy.adapter, "bare", "--format", "hub")
    assert result.exit_code == 0, result.output
    card = ModelCard.load(Path("bare") / README)
    assert "Not recorded" in card.text
    for title in ("## Scores", "## Licences", "samples.png"):
        assert title not in card.text
    assert "license" not in card.data.to_dict()


@pytest.mark.usefixtures("project")
def test_a_base_and_data_of_the_hub_are_named(cli: Cli) -> None:
    params: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text())
    params["backbone"] = {"source": "hub", "path": "a/base", "revision": "f" * 40}
    shards = {"repository": "a/set", "revision": "e" * 40, "train": "0.tar", "validation": "1.tar"}
    params["data"] |= {"source": "hub", "fetch": shards}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    card = exported(cli)
    front = card.data.to_dict()
    assert (front["base_model"], front["datasets"]) == ("a/base", "a/set")
    assert f'from_pretrained("a/base", revision="{"f" * 40}")' in card.text
    assert "Data: a/set, 18 images" in card.text


@pytest.mark.usefixtures("project")
def test_the_image_encoder_is_named_and_its_place_is_not_told(cli: Cli, toy: "Toy") -> None:
    adapter = storage.load_adapter(toy.adapter, load_part(toy.backbone, "unet"))
    named = {"image_encoder": toy.evaluator, "pretrained": "tag"}
    save_adapter(adapter, Path("models/theirs"), parse_variant(VARIANT), {}, **named)
    export = ("export", "models/theirs", "it", "--format", "hub")
    result = cli(*export)
    assert result.exit_code == 1
    assert "if you trust that, name it" in result.stderr
    assert not Path("it").exists()
    result = cli(*export, "--image-encoder", toy.evaluator, "--pretrained", "tag")
    assert result.exit_code == 0, result.output
    card = Path("it", README).read_text()
    arguments = f'"{REPOSITORY}", image_encoder="local-dir:evaluator", pretrained="tag")'
    assert arguments in card
    assert str(toy.backbone.parent) not in card


def test_every_variant_is_exported(cli: Cli, toy: "Toy", workplace: Path) -> None:
    """Those that no stock loader takes, too."""
    wide = parse_variant({**VARIANT, "projection": "mlp", "hidden_layers": 1, "expansion": 2})
    save_adapter(build_adapter(wide, load_part(toy.backbone, "unet"), 24), Path("it"), wide, {})
    Path("it.presets.json").write_text("{}")
    result = cli("export", "it", "out", "--format", "hub", "--backbone", toy.backbone)
    assert result.exit_code == 0, result.output
    assert read_json(workplace / "out" / "presets.json") == {}


# of the hub's own client
@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning")
@pytest.mark.parametrize("large", [(), (".safetensors", ".png")], ids=["regular", "lfs"])
@pytest.mark.usefixtures("project")
def test_up_and_down_again(
    large: tuple[str, ...], cli: Cli, toy: "Toy", server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's own lines make the image that the folder makes; a second upload changes it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    server.large = large
    exported(cli)
    for _ in range(2):
        result = cli("upload", "out", NAME)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{server.address}/{NAME}\n"
    assert TOKEN not in result.output
    files = server.repositories[NAME]["main"]
    assert {name: data for name, data in files.items() if name != README} == {
        path.name: path.read_bytes() for path in Path("out").iterdir() if path.name != README
    }
    card = files[README].decode()
    assert bool(server.stored) == bool(large)
    assert REPOSITORY not in card
    [code] = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    REFERENCE.save("image.png")
    made: dict[str, Any] = {}
    torch.manual_seed(3)
    exec(code, made)
    pipe = StableDiffusionPipeline.from_pretrained(toy.backbone, safety_checker=None)
    image_prompt = load_adapter(pipe.to(torch.float32), "models/mine")
    torch.manual_seed(3)
    ours = pipe("a red hat", **image_prompt(REFERENCE, scale=0.8)).images[0]
    with Image.open("out.png") as theirs:
        assert theirs.tobytes() == ours.tobytes()


@pytest.mark.usefixtures("project")
def test_a_branch_and_a_private_repository(cli: Cli, server: Hub) -> None:
    exported(cli)
    Path("out/notes.txt").write_text("mine alone")
    Path("out/.hidden.json").write_text("{}")
    result = cli("upload", "out", NAME, "--revision", "v2", "--private")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{server.address}/{NAME}/tree/v2\n"
    assert server.private == {NAME}
    branches = server.repositories[NAME]
    assert branches["main"] == {}
    assert branches["v2"].keys() == {WEIGHTS, CONFIG, README, GRID}


@pytest.mark.usefixtures("project")
def test_refusals_are_one_line(
    cli: Cli, server: Hub, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(message: str, *arguments: object) -> None:
        result = cli("upload", *arguments)
        assert result.exit_code == 1, result.output
        assert re.search(message, result.stderr), result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert TOKEN not in result.output

    exported(cli, "--license", BAD_LICENCE)
    refused(r"models/mine is no export for the hub, it has no README\.md", "models/mine", NAME)
    refused(r"nowhere is no export .*export MODEL OUT --format hub", "nowhere", NAME)
    refused(r"Invalid metadata in README\.md.*license.*: correct it", "out", NAME)
    refused(r"denies access to another/it \(403\): .* write it", "out", "another/it")
    refused("did not take no/such/name .*: correct it", "out", "no/such/name")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    refused(r"denies access to someone/it \(401\)", "out", NAME)
    monkeypatch.delenv("HF_TOKEN")
    refused("no token for the hub: run `hf auth login`", "out", NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    point_at(9, workplace, monkeypatch)
    refused("cannot reach the hub for someone/it: check the network", "out", NAME)
    weights = Path("out") / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    refused(f"{WEIGHTS} is damaged", "out", NAME)
    assert not any(branch for each in server.repositories.values() for branch in each.values())


@pytest.mark.usefixtures("project")
def test_a_damaged_project_leaves_no_folder(cli: Cli) -> None:
    table = pd.read_csv("results/comparison.csv")
    table.assign(clip_i_lo=None).to_csv("results/comparison.csv", index=False)
    result = cli("export", "models/mine", "out", "--format", "hub")
    assert result.exit_code == 1
    assert "lacks a score" in result.stderr
    table.assign(trainable_params=7).to_csv("results/comparison.csv", index=False)
    result = cli("export", "models/mine", "out", "--format", "hub")
    assert result.exit_code == 1
    assert "scores a mine of 7 parameters, this adapter has 25,792" in result.stderr
    assert not Path("out").exists()
