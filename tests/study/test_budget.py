"""Hours of the study: operations add up, and the original's models are planned beside."""

from pathlib import Path

import pytest
import yaml
from toy_backbone import Toy

from adapterbench.study.budget import PlanParams, plan

ROOT = Path(__file__).parents[2]
ROWS = {
    "first": {"projection": "linear", "tokens": 4, "attention": "decoupled"},
    "second": {"projection": "linear", "tokens": 2, "attention": "decoupled"},
}


def test_hours_follow_from_runs(toy: Toy, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = yaml.safe_load((ROOT / "params.yaml").read_text())
    project["data"]["resolution"] = 32
    project["encode"]["image_encoder"] = toy.image_encoder
    (workplace / "project.yaml").write_text(yaml.safe_dump(project))
    own = yaml.safe_load((ROOT / "study/params.yaml").read_text())
    own |= {
        "variants": ROWS,
        "rates": {"steps": 10, "learning_rates": [0.1, 0.2, 0.3]},
        "screening": {"steps": 30, "seed": 0},
        "curves": {"rows": ["first"], "seeds": [1, 2], "steps": [10, 20]},
        "data_sizes": {"rows": ["second"], "samples": [4], "steps": 10, "seed": 0},
        "confirmation": {"rows": ["first", "second"], "seeds": [1, 2], "steps": 10},
    }
    folder = workplace / "study"
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(own))
    monkeypatch.chdir(folder)
    found = plan(PlanParams.model_validate(own["plan"]), toy.backbone, workplace / "project.yaml")
    groups = found["groups"]
    runs = {"rates": 6, "screening": 2, "curves": 4, "data_sizes": 1, "confirmation": 4}
    assert {name: group["runs"] for name, group in groups.items()} == runs
    # both rows, as many steps in all; the screening generates images too
    assert groups["screening"]["flops"] > groups["rates"]["flops"]
    for group in groups.values():
        assert group["hours"] == pytest.approx(group["flops"] / 0.18e12 / 3600)
    original = found["original"]
    assert original["samples"] == 2919397
    # keys and values of 16 layers from 768 features, and a projection of 512 to 4 or to 2 tokens
    layers = 2 * 768 * (5 * 320 + 5 * 640 + 6 * 1280)
    projections = [(512 + 1) * tokens * 768 + 2 * 768 for tokens in (4, 2)]
    counts = [original["training"][row]["trainable_params"] for row in ROWS]
    assert counts == [layers + projection for projection in projections]
    assert original["training"]["first"]["hours"] > 1
