"""`dvc exp run`: composed by Hydra from conf/, and only what changed is run again."""

import json
from pathlib import Path

import pytest
import yaml

from .project import Project, stages_of

pytestmark = pytest.mark.slow


def params(project: Project) -> dict[str, dict[str, object]]:
    """The workspace's params.yaml."""
    loaded: dict[str, dict[str, object]] = yaml.safe_load(
        (project.root / "params.yaml").read_text()
    )
    return loaded


def test_one_number_runs_one_variant_again(project: Project) -> None:
    ran = project.ran("exp", "run", "-S", "variants.ip_adapter_lora.rank=4")
    assert ran == stages_of("ip_adapter_lora") | {"compare", "figures"}

    changed = json.loads(project.dvc("params", "diff", "--json").stdout)
    rank = {"old": 2, "new": 4, "diff": 2}
    assert changed == {"params.yaml": {"variants.ip_adapter_lora.rank": rank}}
    metrics = json.loads(project.dvc("metrics", "diff", "--json").stdout)
    grown = metrics["metrics/comparison.json"]["ip_adapter_lora.trainable_params"]
    assert grown["new"] > grown["old"]

    page = project.dvc("plots", "diff", "HEAD").stdout.strip()
    assert Path(page.removeprefix("file://")).exists()
    assert project.run("git", "status", "--porcelain").stdout == " M dvc.lock\n M params.yaml\n"


def test_a_group_of_conf_is_chosen_by_name(project: Project) -> None:
    before = params(project)
    assert project.ran("exp", "run", "-S", "evaluation=full", "fetch") == set()
    after = params(project)
    assert after["sample"]["items"] == 896
    assert after.pop("further_splits") == ["novel"]
    assert before.pop("further_splits") == []
    assert after["layers"].pop("variants")
    assert before["layers"].pop("variants") == []
    assert list(after.pop("training_free")) == ["img2img", "reference_only"]
    assert before.pop("training_free") == {}
    numbers = {
        "sample": ("items", "images_per_item"),
        "score": ("kid_subset_size",),
        "illustrate": ("pairs",),
    }
    for section, names in numbers.items():
        after[section] |= {name: before[section][name] for name in names}
    assert after == before


def test_a_queued_experiment_runs_the_code_that_it_was_queued_with(project: Project) -> None:
    project = project.in_real_processes()
    code = project.root / "src/adapterbench/report/markdown.py"
    committed = code.read_text()
    code.write_text(f"{committed}\nROWS = 'As it was queued.'\n")
    project.dvc("exp", "run", "--queue", "--name", "queued", "compare")
    code.write_text(f"{committed}\nROWS = 'As it was edited later.'\n")
    project.dvc("queue", "start")
    project.dvc("queue", "logs", "queued", "--follow")
    code.write_text(committed)
    project.dvc("exp", "apply", "queued")
    assert "As it was queued." in (project.root / "results/comparison.md").read_text()
