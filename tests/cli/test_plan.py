import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from safetensors.torch import load_file
from toy_xl import WIDTHS

from .conftest import Cli

if TYPE_CHECKING:
    from toy_backbone import Toy
    from toy_xl import ToyXL


@pytest.fixture
def arguments(toy: "Toy", toy_params: Path) -> list[Any]:
    return ["plan", "--params", toy_params, "--backbone", toy.backbone]


def test_a_plan_adds_up(cli: Cli, arguments: list[Any]) -> None:
    device = ["--tflops", 2, "--utilisation", 0.25, "--samples", 10]
    found = json.loads(cli(*arguments, *device, "--json").stdout)
    shapes = {"latents": [4, 4, 4], "text": [16, 32], "image": 24, "patches": [5, 32]}
    assert found["shapes"] == shapes | {"text_encoders": 1}
    mine = found["training"]["mine"]
    assert mine["steps"] == 5
    assert mine["samples_seen"] == 15
    assert mine["flops"] == 5 * mine["flops_per_step"]
    assert mine["optimizer_bytes"] == 16 * mine["trainable_params"]
    assert mine["hours"] == pytest.approx(mine["flops"] / 0.5e12 / 3600)
    assert found["flops"] == mine["flops"] + found["sampling"]["flops"]
    assert found["hours"] == pytest.approx(mine["hours"] + found["sampling"]["hours"])
    assert found["samples"] == 10
    assert found["encoded_bytes"]["latents"] == 10 * 4 * 4 * 4 * 2


def test_bytes_of_patches_are_shown(cli: Cli, arguments: list[Any], toy_params: Path) -> None:
    params = yaml.safe_load(toy_params.read_text())
    bytes_of = 2 * 4 * 4 * 4 + 2 * 24 + 8  # latents, embedding, a phrasing
    for stored in (False, True):
        params["encode"]["patches"] = stored
        toy_params.write_text(yaml.safe_dump(params))
        found = json.loads(cli(*arguments, "--samples", 10, "--json").stdout)["encoded_bytes"]
        assert sum(found.values()) - found["texts"] == 10 * bytes_of + stored * 11 * 2 * 5 * 32
        shown = cli(*arguments, "--samples", 10).stdout
        assert ("patches" in shown) == stored
        assert "an image" in " ".join(shown.split())


def test_a_plan_over_sdxl(cli: Cli, toy_params: Path, xl: "ToyXL") -> None:
    params = yaml.safe_load(toy_params.read_text())
    arguments = ["plan", "--params", toy_params, "--backbone", xl.backbone]
    Path("data").mkdir()
    Path("data/shards").symlink_to(xl.shards)
    stored = cli(*arguments)
    assert "encode.texts = stored keeps no pooled" in stored.stderr
    assert len(stored.stderr.splitlines()) == 1
    params["encode"]["texts"] = "live"
    toy_params.write_text(yaml.safe_dump(params))
    found = json.loads(cli(*arguments, "--json").stdout)
    assert found["shapes"]["text"] == [16, sum(WIDTHS)]
    assert found["shapes"]["text_encoders"] == 2
    assert found["texts"]["bytes_of_all"].keys() == {"live"}
    written = [load_file(path) for path in xl.encoded.glob("*.safetensors")]
    assert sum(found["encoded_bytes"].values()) == sum(
        tensor.nbytes for tensors in written for tensor in tensors.values()
    )
    assert "live (live: " in cli(*arguments).stdout


def test_what_nobody_said_stays_open(cli: Cli, arguments: list[Any]) -> None:
    found = json.loads(cli(*arguments, "--json").stdout)
    assert found["hours"] is found["device"] is found["samples"] is found["encoded_bytes"] is None
    shown = cli(*arguments)
    assert shown.exit_code == 0
    assert "give --samples" in shown.stdout


def test_prepared_shards_are_counted(cli: Cli, arguments: list[Any], toy: "Toy") -> None:
    Path("data").mkdir()
    Path("data/shards").symlink_to(toy.shards)
    shown = cli(*arguments, "--tflops", 1)
    assert "24 images" in shown.stdout


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["--tflops", 0], "--tflops = 0.0"),
        (["--tflops", "nan"], "--tflops = nan"),
        (["--utilisation", 0], "--utilisation = 0.0"),
        (["--utilisation", 1.5], "--utilisation = 1.5"),
        (["--backbone", "nowhere"], "no folder 'nowhere'"),
        (["--profile", "nowhere"], "no profile 'nowhere'"),
    ],
)
def test_bad_numbers_are_one_line(cli: Cli, bad: list[Any], message: str) -> None:
    result = cli("plan", *bad)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_teaches(cli: Cli) -> None:
    top = cli("--help").stdout
    assert "variants" in top
    assert "plan" in top
    assert "TFLOP/s" in cli("plan", "--help").stdout
