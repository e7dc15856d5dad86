"""The pipeline that trains the small backbone: a DVC repository of its own inside the project's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from toy_backbone import CLIP_PARAMS, FIT, UNET_PARAMS, VAE_PARAMS

from adapterbench.core.files import write_json
from adapterbench.data.sources import emoji
from adapterbench.pretraining.clip import ContrastParams

from .project import CONCEPTS, Project, entry

pytestmark = pytest.mark.slow

BROUGHT = {"fetch", "neutral_evaluator", "hold_out", "prepare"}
TRAINED = {"clip@clip", "clip@evaluator", "vae", "unet", "image_encoder", "report"}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
AFTER = {
    *("archive", "controlnet", "edges", "openmoji"),
    *("descendant@openmoji_color", "descendant@openmoji_black"),
}
HOLD_OUT = {
    "families": ["google", "twitter"],
    "least_families": 2,
    "drawn_alike": [],
    "novel_images": 4,
    "novel": 1,
    "tuning": 1,
    "validation": 1,
    "validation_pairs": 1,
    "twin_cosine": 0.9,
    "seed": 0,
}
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
    '<circle cx="36" cy="36" r="9" fill="red" stroke="black" stroke-width="2"/></svg>'
)


def drawings(folder: Path) -> dict[str, str]:
    """An npm package in the layout of OpenMoji; its row of params.yaml."""
    for style in ("color", "black"):
        svg = folder / style / "svg"
        svg.mkdir(parents=True)
        for number in range(CONCEPTS):
            (svg / f"{entry(number)['unified']}.svg").write_text(SVG)
    write_json(folder / "package.json", {"name": "toy-openmoji", "version": "1.0.0"})
    tarball = folder.with_suffix(".tgz")
    emoji.npm_pack(str(folder), tarball)
    return {"name": str(folder), "integrity": emoji.integrity(tarball)}


@pytest.fixture
def pretraining(project: Project, tmp_path: Path) -> Project:
    """The inner repository with toy numbers."""
    measured = {"items": 3, "steps": 2, "guidance_scale": 3.0, "batch_size": 4, "seed": 0}
    outer = yaml.safe_load((project.root / "params.yaml").read_text())
    tuned = CLIP_PARAMS.model_dump(include=set(ContrastParams.model_fields))
    params = {
        "data": outer["data"],
        "neutral_evaluator": outer["neutral_evaluator"],
        "hold_out": HOLD_OUT,
        "clip": CLIP_PARAMS.model_dump(mode="json"),
        "evaluator": CLIP_PARAMS.model_dump(mode="json"),
        "vae": VAE_PARAMS.model_dump(mode="json"),
        "image_encoder": {**tuned, "mixed_precision": "bf16"},
        "unet": UNET_PARAMS.model_dump(mode="json"),
        "controlnet": {**FIT, "conditioning_channels": [8, 8, 8, 8], "drop_text": 0.5},
        "report": {**measured, "shown": 2, "resolution": 32},
        "edges": measured,
        "openmoji": {"package": drawings(tmp_path / "openmoji")},
        **{
            f"openmoji_{style}": {**FIT, "style": style, "rank": 2, "drop_text": 0.1}
            for style in ("color", "black")
        },
    }
    (project.root / "backbone/params.yaml").write_text(yaml.safe_dump(params))
    return replace(project, root=project.root / "backbone")


def test_it_runs_once_and_the_project_does_not_see_it(
    project: Project, pretraining: Project
) -> None:
    assert pretraining.ran("repro") == BROUGHT | TRAINED | AFTER
    compiled = project.root / "src/adapterbench/training/__pycache__/loss.cpython-311.pyc"
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(b"what an import leaves")
    assert pretraining.ran("repro") == set()

    with (project.root / "src/adapterbench/training/loss.py").open("a") as code:
        code.write("# a comment\n")
    changed = json.loads(pretraining.dvc("status", "--json").stdout)
    assert {"unet", "controlnet"} <= changed.keys()
    assert "openmoji" not in changed

    seen = json.loads(project.dvc("status", "--json").stdout)
    assert {name.partition("@")[0] for name in seen} == {"train"}
    metrics = json.loads(project.dvc("metrics", "show", "--json").stdout)[""]["data"]
    assert {Path(name).parts[0] for name in metrics} == {"metrics"}


def test_the_unet_goes_on_from_a_pipeline(pretraining: Project) -> None:
    assert pretraining.ran("repro", "unet") >= {"vae", "unet"}
    config = pretraining.root / "params.yaml"
    params = yaml.safe_load(config.read_text())

    def trained(out: str, first_step: int, *options: str, fails: bool = False) -> str:
        params["unet"] |= {"first_step": first_step, "mixed_precision": "bf16"}
        config.write_text(yaml.safe_dump(params))
        arguments = {
            "shards": "data/shards",
            "vae": "models/vae",
            "clip": "models/clip",
            "out": out,
            "metrics": f"{out}.json",
        }
        given = [word for name, value in arguments.items() for word in (f"--{name}", value)]
        launch = ("python", "../stages/launch.py", "stages/unet.py")
        return pretraining.run(*launch, *given, *options, fails=fails).stderr

    steps = FIT["steps"]
    trained("models/longer", steps - 1, "--start", "models/pipeline")
    first = load_file(pretraining.root / "models/pipeline" / WEIGHTS)
    longer = load_file(pretraining.root / "models/longer" / WEIGHTS)
    moved = max((longer[name] - first[name]).abs().max() for name in first)
    assert 0 < moved < 0.01

    assert "0 without --start" in trained("models/none", 1, fails=True)
    said = trained("models/none", steps, "--start", "models/pipeline", fails=True)
    assert f"must be below unet.steps ({steps})" in said
    assert not (pretraining.root / "models/none").exists()
