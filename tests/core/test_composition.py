"""What was typed into params.yaml and not into conf/ is told, as `dvc exp run` would drop it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from adapterbench.core.composition import compose_params, differing_keys, warn_unsaved_edits

CONFIG = {"defaults": ["_self_", {"variants": "mine"}], "train": {"steps": 3, "rate": 0.1}}


@pytest.fixture
def project(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a small conf/ and the parameters that it composes."""
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    (workplace / "conf/variants").mkdir(parents=True)
    (workplace / "conf/small.yaml").write_text(yaml.safe_dump(CONFIG))
    (workplace / "conf/variants/mine.yaml").write_text("a: {rank: 4}\n")
    (workplace / ".dvc").mkdir()
    (workplace / ".dvc/config").write_text("[hydra]\n    enabled = true\n    config_name = small\n")
    (workplace / "params.yaml").write_text(yaml.safe_dump(compose_params(name="small")))
    return workplace


def edit(project: Path, **sections: Any) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(params | sections))


def test_what_is_composed_is_not_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(project)  # the same values, written otherwise
    warn_unsaved_edits()
    assert not caplog.records


def test_a_variant_that_was_typed_is_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(project, variants={"a": {"rank": 4}, "b": {}}, train={"steps": 5, "rate": 0.1})
    warn_unsaved_edits()
    [line] = caplog.messages
    assert "conf/ composes, in train.steps, variants.b. `dvc exp run`" in line


def test_an_experiment_sets_what_it_likes(
    project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(project, train={"steps": 5})
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-kite")
    warn_unsaved_edits()
    assert not caplog.records


@pytest.mark.parametrize("config", ["train: {", "defaults: [{variants: none}]", "a: ${b}"])
def test_a_conf_that_cannot_be_composed_stops_no_stage(
    project: Path, caplog: pytest.LogCaptureFixture, config: str
) -> None:
    (project / "conf/small.yaml").write_text(config)
    warn_unsaved_edits()
    [line] = caplog.messages
    assert line.startswith("conf/ cannot be composed (")
    assert "\n" not in line


def test_a_project_without_conf_is_none_of_its_business(
    workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (workplace / "params.yaml").write_text("{}")
    (workplace / ".dvc").mkdir()
    (workplace / ".dvc/config").write_text("no section\n")
    warn_unsaved_edits()
    assert not caplog.records


def test_keys_that_differ() -> None:
    one = {"a": {"b": 1, "c": None, "d": {"e": 2}}, "f": [1], "g": {}}
    other = {"a": {"b": 1.0, "d": {"e": 3}}, "f": [1, 2], "g": 5, "h": 0}
    assert list(differing_keys(one, other)) == ["a.c", "a.d.e", "f", "g", "h"]
    assert list(differing_keys(one, one)) == []
