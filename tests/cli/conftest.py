"""The command line in the test's own process."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from adapterbench.cli.main import COMMANDS, HELP
from adapterbench.runs.program import program

if TYPE_CHECKING:
    from toy_backbone import Toy

ROOT = Path(__file__).parents[2]
ROW = {"projection": "linear", "attention": "decoupled", "tokens": 4}

Cli = Callable[..., Result]


@pytest.fixture
def cli() -> Cli:
    """Run `adapterbench ARGUMENTS`."""
    app = program(*COMMANDS, help=HELP)
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the project's root, where conf/ and params.yaml are."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def toy_params(workplace: Path, toy: "Toy") -> Path:
    """params.yaml of a project over the toy backbone, with one row, in the folder of the test."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"]["resolution"] = 32
    params["encode"] |= {"image_encoder": toy.image_encoder}
    params["variants"] = {"mine": {**ROW, "train": {"steps": 5, "batch_size": 3}}}
    path = workplace / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path
