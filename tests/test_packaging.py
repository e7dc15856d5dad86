"""What is installed is what is imported, and the library works without the extras."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical
from toy_backbone import Toy

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PARTS = ("pipeline", "tracking", "demo")
"""The extras that the package itself imports; `dev` is for the tests."""


def names(requirements: list[str]) -> set[str]:
    """Distributions, without the project's own extras."""
    return {str(canonical(Requirement(each).name)) for each in requirements} - {"adapterbench"}


@cache
def needed(distribution: str) -> frozenset[str]:
    """What a distribution brings with it here, itself included."""
    try:
        rows = [Requirement(row) for row in requires(distribution) or []]
    except PackageNotFoundError:  # of another platform
        return frozenset()
    own = {
        canonical(row.name) for row in rows if not row.marker or row.marker.evaluate({"extra": ""})
    }
    return frozenset({distribution}).union(*map(needed, own - {distribution}))


def imported() -> set[str]:
    """Packages that a module of the project imports, at its head or later."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) if node.module}
    roots = {module.partition(".")[0] for module in modules}
    return roots - sys.stdlib_module_names - {"adapterbench"}


@cache
def distributions() -> dict[str, list[str]]:
    """Importable package -> what has files in it; found by reading every installed file's name."""
    return dict(packages_distributions())


def makers(package: str) -> set[str]:
    """Distributions that have files in an importable package."""
    return {canonical(name) for name in distributions()[package]}


def test_what_is_imported_is_declared() -> None:
    declared = names(PROJECT["dependencies"]).union(*(names(EXTRAS[part]) for part in PARTS))
    of_hydra = {"omegaconf"}  # the type of what it composes
    of_another = {"img2dataset", "pyspark", "ray"}  # environment, which data.distributors runs in
    own = imported() - of_hydra - of_another
    assert {package for package in own if not makers(package) & declared} == set()


def test_the_lock_holds_what_is_declared_within_its_bounds() -> None:
    lines = [
        line.partition(";")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()
    ]
    locked = {
        canonical(name): version for name, _, version in (line.partition("==") for line in lines)
    }
    declared = [*PROJECT["dependencies"], *(row for rows in EXTRAS.values() for row in rows)]
    for row in map(Requirement, declared):
        if canonical(row.name) != "adapterbench":
            assert row.specifier.contains(locked[canonical(row.name)].strip()), str(row)


BLOCK = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set({modules!r}):
            return None
        return self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def without_extras() -> str:
    """Code that makes what the extras alone bring impossible to import."""
    core = frozenset[str]().union(*map(needed, names(PROJECT["dependencies"])))
    extras = set[str]().union(*(names(EXTRAS[part]) for part in PARTS))
    absent = frozenset[str]().union(*map(needed, extras)) - core
    modules = {package for package in distributions() if makers(package) <= absent}
    assert {"dvc", "mlflow", "gradio", "pandas", "seaborn", "webdataset"} <= modules
    return BLOCK.format(modules=sorted(modules))


USE = """
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from adapterbench import load_adapter

pipe = StableDiffusionPipeline.from_pretrained({backbone!r}, safety_checker=None).to(torch.float32)
image_prompt = load_adapter(pipe, {adapter!r}, image_encoder={encoder!r})
conditions = image_prompt(Image.new("RGB", (32, 32), "red"))
print(pipe("a red frame", num_inference_steps=1, **conditions).images[0].size)
"""


def run(code: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run code in a Python of its own, away from the project."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
    )


def test_the_library_works_without_the_extras(toy: Toy, tmp_path: Path) -> None:
    encoder = f"local-dir:{toy.backbone / 'image_encoder'}"
    use = USE.format(backbone=str(toy.backbone), adapter=str(toy.adapter), encoder=encoder)
    done = run(without_extras() + use, tmp_path)
    assert done.stdout == "(32, 32)\n", done.stderr


@pytest.mark.slow
def test_a_command_counts_parameters_outside_a_project_without_the_extras(tmp_path: Path) -> None:
    command = "sys.argv = ['adapterbench', 'variants', '--profile', 'sd15', '--json']\n"
    done = run(
        without_extras() + command + "from adapterbench.cli.main import main; main()", tmp_path
    )
    assert "20746752" in done.stdout, done.stderr


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    command = "sys.argv = ['adapterbench', 'plan', '--profile', 'sd15']\n"
    done = run(
        without_extras() + command + "from adapterbench.cli.main import main; main()", tmp_path
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: \w+ is not installed: `pip install 'adapterbench\[.*", done.stderr.strip()
    )


@pytest.mark.slow
def test_the_wheel_works_in_a_new_environment(toy: Toy, tmp_path: Path) -> None:
    """Built, installed by name with the lock as constraints, and used outside the clone."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run(
        ["make", "--silent", "-C", ROOT, "wheel", f"WHEELS={tmp_path}"],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements.lock", wheel],
        check=True,
    )
    encoder = f"local-dir:{toy.backbone / 'image_encoder'}"
    use = USE.format(backbone=str(toy.backbone), adapter=str(toy.adapter), encoder=encoder)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", use], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout == "(32, 32)\n", done.stderr
    command: list[str | Path]
    command = [python.parent / "adapterbench", "variants", "--profile", "sd15", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "20746752" in done.stdout, done.stderr
    absent = subprocess.run(
        [python, "-c", "import mlflow"], env=env, capture_output=True, text=True
    )
    assert absent.returncode == 1
