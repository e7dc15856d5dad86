"""Which command makes an input again: the stage of dvc.yaml that it is an output of."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def remedies() -> Iterator[ModuleType]:
    """The module as a stage beside it imports it."""
    sys.path.insert(0, str(ROOT / "stages"))
    import remedies

    yield remedies
    sys.path.remove(str(ROOT / "stages"))


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("data/shards/train-99999.tar", "run `dvc repro prepare`"),
        ("data/neutral_evaluator/none.json", "run `dvc repro neutral_evaluator`"),
        ("models/ip_adapter/none.safetensors", "run `dvc repro train@ip_adapter`"),
        ("samples/no_prompt/none.tar", "run `dvc repro sample_floor@no_prompt`"),
        ("illustrations/text_only/none.tar", "run `dvc repro illustrate_floor@text_only`"),
        ("somewhere/else.json", "make it again"),
    ],
)
def test_a_missing_file_names_its_stage(
    path: str, command: str, remedies: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert remedies.remedy(Path(path)) == command


def test_one_that_is_there_is_in_the_way(
    remedies: ModuleType, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remedies, "maker", lambda _: "encode")
    (workplace / "a.json").touch()
    told = remedies.remedy(Path("a.json"))
    assert told == "delete it and run `dvc repro encode` (with -f where that brings the same again)"


@pytest.mark.usefixtures("workplace")
def test_outside_a_project_there_is_no_stage(remedies: ModuleType) -> None:
    assert remedies.remedy(Path("data/shards")) == "make it again"
