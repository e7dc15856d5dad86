"""The project's shape: which way imports point, what DVC stages depend on, what conf/ composes."""

import ast
import re
import shutil
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.utils.hydra import compose_and_dump
from pathspec import PathSpec

from adapterbench.adapters.core.build import parse_variant
from adapterbench.core import config, registry

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"

FLOORS = (
    {"core"},
    {"runs", "formats", "frozen", "backbone", "adapters"},
    {"data", "encoding", "scoring", "training", "exchange", "report"},
    {"sampling", "pretraining"},
    {"illustrating", "demo"},
    {"cli"},
)
"""The folders of the package; one imports from floors below its own alone."""

INERT = {
    "adapterbench.core.config": "parses sections that are params of the stage",
    "adapterbench.core.errors": "words for people",
    "adapterbench.core.files": "writes whole files; what is in them is the caller's",
    "adapterbench.runs.processes": "says who does what, not what is done",
    "adapterbench.runs.record": "notes what ran; no stage reads it",
    "adapterbench.core.registry": "finds a module that is a dependency itself",
    "adapterbench.runs.resume": "says where the state of a killed run lies",
    "adapterbench.runs.program": "logging and exit codes",
    "adapterbench.runs.follow": "copies the record to MLflow",
}
"""Modules that change no output, so an edit to them re-runs nothing; and why."""

LOADS = {
    "stages/fetch.py": ["adapterbench.data.sources.{data.source}"],
    "stages/backbone.py": ["adapterbench.backbone.sources.{backbone.source}"],
    "adapterbench.backbone.bases": [
        f"adapterbench.backbone.sources.{source}" for source in ("hub", "local", "published")
    ],
    "adapterbench.data.prepare": ["adapterbench.data.sources.{data.source}"],
    "adapterbench.adapters.core.build": [
        "adapterbench.adapters.projections.{item.projection}",
        "adapterbench.adapters.attention.{item.attention}",
    ],
}
"""Who loads a module by the name that a parameter gives (`item`: the row of the variant)."""

READS = {"adapterbench.report.page": SRC / "adapterbench/report/templates"}
"""Files of the package that a module reads."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in (SRC / "adapterbench").rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` that run; what stands under `if TYPE_CHECKING` does not."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from statements(child)


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules of the package that a file imports, inside functions too."""
    names = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in modules() else node.module or "")
    return frozenset(names & modules().keys())


def name_of(path: Path) -> str:
    """A module's dotted name; a script's path."""
    known = {file: name for name, file in modules().items()}
    return known.get(path) or path.relative_to(ROOT).as_posix()


def folder(module: str) -> str:
    """The folder directly under the package that a module belongs to; empty for the package."""
    return module.removeprefix("adapterbench").removeprefix(".").partition(".")[0]


def floor(module: str) -> int:
    """Number of the floor of a module, from the ground up."""
    [number] = [n for n, folders in enumerate(FLOORS) if folder(module) in folders]
    return number


INSIDE = sorted(name for name in modules() if folder(name) not in {"", "__main__"})


@pytest.mark.parametrize("module", INSIDE)
def test_imports_point_down(module: str) -> None:
    others = [name for name in imports(modules()[module]) if folder(name) != folder(module)]
    assert [name for name in others if floor(name) >= floor(module)] == []


def test_imports_have_no_cycle() -> None:
    graph = {name: imports(path) - {name} for name, path in modules().items()}
    assert list(TopologicalSorter(graph).static_order())


def test_loads_by_name_are_declared() -> None:
    files = [*modules().values(), *ROOT.glob("stages/*.py")]
    loaders = {name_of(path) for path in files if "adapterbench.core.registry" in imports(path)}
    assert loaders == LOADS.keys()


@cache
def params() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return loaded


@cache
def stages() -> dict[str, Any]:
    """The stages of the main pipeline as DVC resolves them, by name such as `train@ip_adapter`."""
    with Repo(str(ROOT)) as repo:
        found = [s for s in repo.index.stages if Path(s.path) == ROOT / "dvc.yaml"]
    return {stage.addressing: stage for stage in found}


def variant(stage: str) -> dict[str, Any] | None:
    """The row of a stage that belongs to a variant."""
    row: dict[str, Any] | None = params()["variants"].get(stage.partition("@")[2])
    return row


def script(stage: str) -> Path:
    """The script that a stage runs."""
    found = re.search(r"python (\S+\.py)", stages()[stage].cmd)
    assert found, f"{stage} runs no script"
    return ROOT / found[1]


def used(stage: str) -> set[Path]:
    """Every file of code that a stage imports or reads and that may change what it makes."""
    row = variant(stage)
    scope = {key: Namespace(value) for key, value in params().items()} | {"item": Namespace(row)}
    todo, seen = [script(stage)], set()
    while todo:
        path = todo.pop()
        name = name_of(path)
        if path in seen or name in INERT:
            continue
        seen.add(path)
        patterns = LOADS.get(name, []) if row or "item" not in str(LOADS.get(name)) else []
        loaded = {pattern.format_map(scope) for pattern in patterns}
        todo += [modules()[needed] for needed in imports(path) | loaded]
    seen |= {
        file for path in seen if name_of(path) in READS for file in READS[name_of(path)].iterdir()
    }
    return {path for path in seen if not says_nothing(path)}


class Namespace:
    """A mapping whose keys are attributes, for `str.format`."""

    def __init__(self, values: dict[str, Any] | None) -> None:
        self.__dict__.update(values or {})


def says_nothing(path: Path) -> bool:
    """Whether a module holds a docstring and no more, as `__init__.py` should."""
    if path.suffix != ".py":
        return False
    return all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for node in ast.parse(path.read_text()).body
    )


def code(stage: str) -> set[Path]:
    """The files of code that a stage depends on in dvc.yaml, folders spelled out."""
    paths = [
        Path(dep.fs_path) for dep in stages()[stage].deps if not isinstance(dep, ParamsDependency)
    ]
    ours = [path for path in paths if path.is_relative_to(SRC) or path.suffix == ".py"]
    files = [file for path in ours for file in (path.rglob("*") if path.is_dir() else [path])]
    return {
        file
        for file in files
        if file.is_file() and "__pycache__" not in file.parts and not says_nothing(file)
    }


@pytest.mark.parametrize("stage", sorted(stages()))
def test_a_stage_depends_on_the_code_it_runs_and_on_no_other(stage: str) -> None:
    def listed(paths: set[Path]) -> list[str]:
        return sorted(path.relative_to(ROOT).as_posix() for path in paths)

    assert listed(used(stage) - code(stage)) == [], "missing in its deps"
    assert listed(code(stage) - used(stage)) == [], "needless: an edit would re-run it for nothing"


SOURCES = registry.keys("adapterbench.data.sources")


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_needs_no_more_code_than_its_stages_name(source: str) -> None:
    """`dvc.yaml` names the same files whichever source it is; the test above takes the default."""
    needed = imports(modules()[f"adapterbench.data.sources.{source}"]) - INERT.keys()
    assert needed <= {"adapterbench.data.sample"}


def test_training_does_not_depend_on_sources_scores_or_report() -> None:
    for name in stages():
        if name.startswith("train@"):
            folders = {path.relative_to(SRC).parts[1] for path in code(name) - {script(name)}}
            assert folders <= {"adapters", "formats", "frozen", "training"}


def test_every_stage_is_described() -> None:
    with Repo(str(ROOT)) as repo:
        assert [s.addressing for s in repo.index.stages if s.cmd and not s.desc] == []


def test_stage_scripts_are_thin() -> None:
    scripts = [*ROOT.glob("stages/*.py"), *ROOT.glob("backbone/stages/*.py")]
    assert [path for path in scripts if len(path.read_text().splitlines()) > 40] == []


def test_git_ignores_every_output() -> None:
    """DVC's own .gitignore entries come after a run without a failure, inside hashed folders."""
    patterns = (ROOT / ".gitignore").read_text().splitlines()
    ignored = PathSpec.from_lines("gitignore", patterns)
    outs = [Path(out.fs_path) for stage in stages().values() for out in stage.outs]
    names = [out.relative_to(ROOT).as_posix() for out in outs]
    assert [name for name in names if not ignored.match_file(name)] == []


def compose(path: Path, *overrides: str, conf: Path = ROOT / "conf") -> dict[str, Any]:
    """What `dvc exp run -S OVERRIDE ...` writes to params.yaml."""
    compose_and_dump(path, str(conf), None, "config", "", list(overrides))
    composed: dict[str, Any] = yaml.safe_load(path.read_text())
    return composed


def test_params_are_what_conf_composes(tmp_path: Path) -> None:
    compose(tmp_path / "params.yaml")
    # to the byte, so that `dvc exp run` leaves no change in git
    assert (ROOT / "params.yaml").read_text() == (tmp_path / "params.yaml").read_text()


def test_full_evaluation_differs_in_numbers_of_pictures_alone(tmp_path: Path) -> None:
    full = compose(tmp_path / "params.yaml", "evaluation=full")
    assert full["sample"].pop("items") == 1177
    assert full["sample"].pop("images_per_item") > params()["sample"]["images_per_item"]
    sizes = {"items", "images_per_item"}
    assert full["sample"] == {k: v for k, v in params()["sample"].items() if k not in sizes}
    assert {**full, "sample": None} == {**params(), "sample": None}


def test_rows_come_and_go_on_the_command_line(tmp_path: Path) -> None:
    row = {"projection": "linear", "attention": "append", "tokens": 1}
    added = "+variants.mine={projection: linear, attention: append, tokens: 1}"
    rows = compose(tmp_path / "params.yaml", added, "~variants.ip_adapter")["variants"]
    kept = {name: old for name, old in params()["variants"].items() if name != "ip_adapter"}
    assert rows == {**kept, "mine": row}


def test_a_file_of_rows_stands_on_another(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    row = {"projection": "linear", "attention": "append", "tokens": 1}
    (conf / "variants/mine.yaml").write_text(yaml.safe_dump({"defaults": ["five"], "mine": row}))
    rows = compose(tmp_path / "params.yaml", "variants=mine", conf=conf)["variants"]
    assert rows == {**params()["variants"], "mine": row}


OPTIONS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(ROOT.glob("conf/*/*.yaml"))
    if path.parent.name != "accelerate"  # where a training runs, not what it computes
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_a_group_is_a_valid_configuration(option: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    rows = compose(path, option)["variants"]
    sections: dict[str, type[config.Section]] = {
        "data": config.DataParams,
        "backbone": config.BackboneParams,
        "encode": config.EncodeParams,
        "train": config.TrainParams,
        "sample": config.SampleParams,
        "illustrate": config.IllustrateParams,
        "score": config.ScoreParams,
        "compare": config.CompareParams,
    }
    assert yaml.safe_load(path.read_text()).keys() == sections.keys() | {"variants", "bases"}
    config.load_bases(path)
    for name, section in sections.items():
        config.load_params(section, name, path)
    data = config.load_params(config.DataParams, "data", path)
    source = registry.load("adapterbench.data.sources", data.source)
    config.parse(source.Params, data.fetch, "data.fetch")
    for name, row in rows.items():
        parse_variant(row)
        config.load_train(name, path)
