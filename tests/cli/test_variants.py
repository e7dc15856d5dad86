import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from adapters.core.test_build import ON_BASES

from .conftest import Cli

if TYPE_CHECKING:
    from toy_backbone import Toy

DECK = {
    "uni_controlnet_global": 11_804_160,
    "ip_adapter_mlp_lora": 24_273_408,
    "ip_adapter_lora": 14_307_840,
    "ip_adapter_mlp": 30_712_320,
    "ip_adapter": 20_746_752,
}
"""Of the original study, in the order of its table."""


@pytest.mark.usefixtures("in_project")
def test_the_original_study(cli: Cli) -> None:
    result = cli("variants", "--profile", "sd15", "--json")
    found = json.loads(result.stdout)
    assert found["embed_dim"] == 512
    counts = {name: row["trainable_params"] for name, row in found["variants"].items()}
    assert list(counts.items()) == list(DECK.items())


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(("profile", "counts"), ON_BASES.items())
def test_the_same_on_other_bases(cli: Cli, profile: str, counts: dict[str, int]) -> None:
    found = json.loads(cli("variants", "--profile", profile, "--json").stdout)
    assert {name: row["trainable_params"] for name, row in found["variants"].items()} == counts


def test_any_params_file_over_any_folder(cli: Cli, toy: "Toy", toy_params: Path) -> None:
    result = cli("variants", "--params", toy_params, "--backbone", toy.backbone, "--json")
    found = json.loads(result.stdout)
    c, D = 24, 32
    projection = c * 4 * D + 4 * D + 2 * D  # linear, its bias, the norm
    # keys and values of two layers going down, one in the middle, four going up
    attention = 2 * D * sum([32, 64, 64, 64, 64, 32, 32])
    assert found["variants"]["mine"]["trainable_params"] == projection + attention


def test_the_image_encoder_of_the_backbone_is_that_of_the_folder(
    cli: Cli, toy: "Toy", toy_params: Path
) -> None:
    params = yaml.safe_load(toy_params.read_text())
    params["encode"]["image_encoder"] = "backbone:image_encoder"
    toy_params.write_text(yaml.safe_dump(params))
    result = cli("variants", "--params", toy_params, "--backbone", toy.backbone, "--json")
    assert json.loads(result.stdout)["embed_dim"] == 24
    result = cli("variants", "--params", toy_params)  # nobody has brought data/backbone
    assert result.exit_code == 1
    assert "(stage backbone), or count over another" in result.stderr


def test_a_table_for_people(cli: Cli, toy: "Toy", toy_params: Path) -> None:
    result = cli("variants", "--params", toy_params, "--backbone", toy.backbone)
    assert result.exit_code == 0
    assert "mine" in result.stdout
    assert "Trainable parameters" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "nowhere"], "no folder 'nowhere'"),
        (["--profile", "nowhere"], "no profile 'nowhere'"),
        ([], "(stage backbone), or count over another"),
        (["--params", "none.yaml"], "none.yaml is missing"),
    ],
)
@pytest.mark.usefixtures("toy_params")
def test_what_is_missing_is_one_line(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli("variants", *arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize("command", ["variants", "plan"])
def test_a_narrow_screen_cuts_no_name_and_no_number(
    cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli(command, "--profile", "sd15").stdout
    for name, count in DECK.items():
        assert f"{name} " in shown
        assert f"{count:,}" in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert max(map(len, shown.splitlines())) <= 80
