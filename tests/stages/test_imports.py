"""What large libraries a stage's script imports: seconds of every run, so no more than it uses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

HEAVY = {
    *("torch", "torch._dynamo", "torchvision", "diffusers", "transformers", "peft", "accelerate"),
    *("open_clip", "timm", "torch_fidelity", "pandas", "pyarrow", "scipy", "sklearn"),
    *("matplotlib", "seaborn", "mlflow", "gradio", "fastapi", "dvc"),
}
"""Libraries that take a tenth of a second or more."""

UNET = {"accelerate", "diffusers", "peft", "scipy", "torch", "torch._dynamo", "torchvision"} | {
    "transformers"
}
"""What diffusers imports itself with its UNet, whatever is installed and used."""

TABLES = {"pandas", "pyarrow"}
MAY = {
    "fetch": set(),
    "prepare": {"torch"},  # webdataset's
    "backbone": set(),
    "bases": set(),
    "neutral_evaluator": set(),
    "encode": {"accelerate", "torch"},
    "train": UNET,
    "sample": UNET,
    "sample_training_free": UNET,
    "score": {"accelerate", "torch"} | TABLES,
    "illustrate": UNET | TABLES,
    "layers": UNET | TABLES,
    "compare": TABLES,
    "further_split": UNET | TABLES,
    "figures": {"matplotlib", "scipy", "seaborn", "torch"} | TABLES,
}
"""Stages, and the libraries that their scripts may import before they know what they are asked for.

Parts that a parameter names, such as a source or an evaluator, come later with libraries of theirs.
"""

IMPORTER = """
import json, os, runpy, sys
sys.path.insert(0, "stages")  # as Python and launch.py do for a script
from importlib import import_module

def forked(work, *arguments):
    sys.stdout.flush()
    if os.fork() == 0:
        work(*arguments)
        sys.stdout.flush()
        os._exit(0)
    os.wait()

def stage(name):
    runpy.run_path(f"stages/{name}.py")
    print(json.dumps([name, sorted(sys.modules)]))

def stages(libraries, names):
    for library in libraries:
        import_module(library)
    for name in names:
        forked(stage, name)

groups = sorted(json.loads(sys.argv[1]), key=lambda group: len(group[0]))
while groups:
    for library in set.intersection(*(set(libraries) for libraries, _ in groups)):
        import_module(library)
    forked(stages, *groups.pop(0))
"""
"""Imports each script in a fork; what all that are left may import is imported once, before."""


def test_scripts_import_no_library_that_they_do_not_use() -> None:
    cmds = [stage.get("do", stage)["cmd"] for stage in pipeline().values()]
    assert {Path(cmd.split()[2]).stem for cmd in cmds} == MAY.keys()
    groups: dict[frozenset[str], list[str]] = {}
    for name, libraries in MAY.items():
        groups.setdefault(frozenset(libraries), []).append(name)
    request = [[sorted(libraries), names] for libraries, names in groups.items()]
    command = [sys.executable, "-c", IMPORTER, json.dumps(request)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = dict(json.loads(line) for line in done.stdout.splitlines())
    assert imported.keys() == MAY.keys(), done.stderr
    needless = {name: HEAVY.intersection(imported[name]) - MAY[name] for name in MAY}
    assert not any(needless.values()), needless


def pipeline() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return loaded
