"""A whole project of toy size in a folder of its own: real stages, toy data, models and numbers."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import toy_backbone
import yaml
from dvc.utils.hydra import compose_and_dump
from PIL import ImageOps

from adapterbench.core.files import write_json
from adapterbench.data.sources import emoji

ROOT = Path(__file__).parents[2]
CODE = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "backbone/.dvc/.gitignore",
    "backbone/.dvc/config",
    "backbone/.dvcignore",
    "backbone/.gitignore",
    "backbone/dvc.yaml",
    "backbone/params.yaml",
    "backbone/src",
    "backbone/stages",
    "conf",
    "data/splits",
    "dvc.yaml",
    "src",
    "stages",
)
"""What of the real project the toy one is made of."""

SEARCH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""PATH with the commands of this virtual environment in front."""

STYLES = ("google", "twitter")
CONCEPTS = 10
VARIANTS: dict[str, Any] = {
    "ip_adapter": {"projection": "linear", "attention": "decoupled", "tokens": 2},
    "ip_adapter_lora": {"projection": "linear", "attention": "lora", "tokens": 2, "rank": 2},
}
TRAIN = {"steps": 3, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 2}
SAMPLE = {"items": 3, "images_per_item": 2}

ILLUSTRATE = {
    "prompts": [{"image": "red", "text": "blue ring"}],
    "scales": [0, 1],
    "sweep_items": 2,
    "pairs": 2,
    "twin_cosine": None,
}

ALIEN = ("ADAPTERBENCH", "DVC", "GIT", "MLFLOW")
"""How variables begin that no command of the tests inherits."""

PACKAGES = {"evaluation": "sample", "profile": "_global_"}
"""Where a group of conf/ goes in params.yaml, if not to a section of its name."""

VARIANT_STAGES = ("train", "sample", "score", "illustrate")
TABLE_STAGES = ("compare", "figures")
FLOORS = ("no_prompt", "text_only")
REAL = ("other_item", "reference_16px", "vae", "reference")


@dataclass(frozen=True)
class Project:
    """A project folder and the environment that its commands run in."""

    root: Path
    env: dict[str, str]

    def run(self, *command: str, fails: bool = False) -> "subprocess.CompletedProcess[str]":
        """Run a command in the project; it must succeed, or must fail where `fails`."""
        done = subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True)
        assert bool(done.returncode) == fails, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done

    def dvc(self, *arguments: str, fails: bool = False) -> "subprocess.CompletedProcess[str]":
        """Run DVC."""
        return self.run("dvc", *arguments, fails=fails)

    def ran(self, *arguments: str) -> set[str]:
        """Run DVC; the names of the stages whose command it ran."""
        done = self.dvc(*arguments)
        return set(re.findall(r"Running stage '([^']+)'", done.stdout + done.stderr))

    def commit(self, message: str) -> None:
        """Commit all that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def params(self, **changes: Any) -> dict[str, Any]:
        """Merge `section={field: value}` into params.yaml, as a user edits it; the result."""
        path = self.root / "params.yaml"
        params: dict[str, Any] = yaml.safe_load(path.read_text())
        for section, fields in changes.items():
            params[section] |= fields
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        return params

    def in_real_processes(self) -> "Project":
        """The same project with the plain commands of this virtual environment."""
        return replace(self, env={**self.env, "PATH": SEARCH})

    def copy(self, root: Path) -> "Project":
        """The same project elsewhere, with its results and its cache."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root, self.env)

    def clone(self, root: Path) -> "Project":
        """What another person gets by `git clone`."""
        self.run("git", "clone", "--quiet", str(self.root), str(root))
        return Project(root, self.env)


def stages_of(variant: str) -> set[str]:
    """The stages of one variant alone."""
    return {f"{stage}@{variant}" for stage in VARIANT_STAGES}


def all_stages(variants: Iterable[str] = VARIANTS) -> set[str]:
    """Every stage of the pipeline."""
    first = {"fetch", "prepare", "backbone", "bases", "neutral_evaluator", "encode"}
    return {*first, *TABLE_STAGES}.union(
        *(stages_of(variant) for variant in variants),
        {f"sample_floor@{floor}" for floor in FLOORS},
        {"score_floors"},
        {"illustrate_floor@text_only"},
    )


def environment(home: Path) -> dict[str, str]:
    """Commands of this virtual environment, none of the user's own settings, MLflow in `home`."""
    settings = {
        "PATH": SEARCH,
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "ADAPTERBENCH_FOLLOW": "0",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_NAME": "A. User" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "user@example.org" for who in ("AUTHOR", "COMMITTER")},
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ALIEN)}
    return inherited | settings


def create(root: Path, sources: Path, env: dict[str, str]) -> Project:
    """Make the project in `root`, committed and not yet run; `sources` keeps what it refers to."""
    root.mkdir(parents=True)
    for name in CODE:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        elif source.exists():
            shutil.copy(source, target)
    toy_backbone.write_backbone(sources / "backbone")
    configure(root, sources)
    project = Project(root, env)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.commit("Toy project")
    return project


def configure(root: Path, sources: Path) -> None:
    """Toy options of every configuration group, a primary `toy.yaml` over the real one, params."""
    backbone = {"source": "local", "path": str(sources / "backbone"), "revision": None}
    options = {
        "data": {
            "source": "emoji",
            "fetch": {"packages": packages(sources)},
            "resolution": toy_backbone.SIDE,
            "split": "concepts",
            "held_out": None,
            "validation_concepts": 3,
            "images_per_concept": None,
            "samples_per_shard": 8,
            "seed": 0,
        },
        "profile": {"backbone": backbone},
        "variants": VARIANTS,
        "evaluation": SAMPLE,
    }
    conf = root / "conf"
    for group, values in options.items():
        header = f"# @package {PACKAGES.get(group, group)}\n"
        (conf / group / "toy.yaml").write_text(header + yaml.safe_dump(values, sort_keys=False))
    real = yaml.safe_load((conf / "profile/emoji.yaml").read_text())
    toy = {
        "defaults": ["config", *({f"override {group}": "toy"} for group in options), "_self_"],
        "encode": {**real["encode"], "batch_size": 8},
        "bases": {"twin": backbone},
        "train": TRAIN,
        "illustrate": ILLUSTRATE,
        "sample": {"steps": 2, "batch_size": 8},
        "neutral_evaluator": real["neutral_evaluator"],
        "score": real["score"],
        "compare": {"bootstrap_samples": 200},
    }
    (conf / "toy.yaml").write_text(yaml.safe_dump(toy, sort_keys=False))
    settings = root / ".dvc/config"
    settings.write_text(settings.read_text().replace("config_name = config", "config_name = toy"))
    compose_and_dump(root / "params.yaml", str(conf), None, "toy", "", [])


def packages(sources: Path) -> dict[str, dict[str, str]]:
    """Two npm packages of images, made here and pinned as `npm pack` packs them."""
    return {style: package(sources / "packages" / style, style) for style in STYLES}


def package(folder: Path, style: str) -> dict[str, str]:
    """An npm package in the layout of emoji-datasource; its row of `data.fetch.packages`."""
    images = folder / "img" / style / "64"
    images.mkdir(parents=True)
    write_json(folder / "package.json", {"name": f"toy-emoji-{style}", "version": "1.0.0"})
    write_json(folder / "emoji.json", [entry(number) for number in range(CONCEPTS)])
    for number in range(CONCEPTS):
        image = toy_backbone.toy_image(*subject(number))
        image = ImageOps.invert(image) if style == "twitter" else image
        image.save(images / entry(number)["image"])
    tarball = folder.with_suffix(".tgz")
    emoji.npm_pack(str(folder), tarball)
    return {"name": str(folder), "integrity": emoji.integrity(tarball)}


def subject(number: int) -> tuple[str, str]:
    """Shape and colour of a concept."""
    shapes, colours = list(toy_backbone.SHAPES), list(toy_backbone.COLOURS)
    return shapes[number % len(shapes)], colours[number % len(colours)]


def entry(number: int) -> dict[str, Any]:
    """A concept's row of emoji.json."""
    shape, colour = subject(number)
    code = f"{0x1F600 + number:x}"
    return {
        "name": f"{colour} {shape}".upper(),
        "short_names": [f"{colour}_{shape}", shape],
        "subcategory": "geometric",
        "unified": code.upper(),
        "image": f"{code}.png",
    }
