"""The project's shape: which way imports point, what DVC stages depend on, what conf/ composes."""

import ast
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.dvcfile import ProjectFile
from dvc.repo import Repo
from dvc.utils.hydra import compose_and_dump
from matplotlib.colors import to_rgb
from pathspec import PathSpec

from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core import config, registry
from adapterbench.report.figures import looks
from adapterbench.sampling.methods import training_free_method

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"

FLOORS = (
    {"core"},
    {"runs", "formats", "frozen", "backbone", "adapters"},
    {"data", "encoding", "training", "sampling", "scoring", "report", "exchange"},
    {"illustrating", "pretraining", "demo"},
    {"cli"},
    {"study"},
)
"""The folders of the package; one imports from floors below its own alone."""

INERT: dict[str, tuple[set[str], str]] = {
    "adapterbench.core.errors": (
        {"DivergedError", "InputError", "UserError", "one_line", "short_repr"},
        "messages for people",
    ),
    "adapterbench.core.documents": (
        {"Document", "FileName", "Sha256", "unique_keys", "parse_document", "read_document"},
        "refuses JSON of another structure; what it lets through it leaves as it is",
    ),
    "adapterbench.core.imports": ({"fast_imports"}, "how fast modules are imported, not which"),
    "adapterbench.core.limits": (
        {"check_memory", "total_memory"},
        "refuses what is too large for the machine",
    ),
    "adapterbench.core.files": (
        {
            *("MANIFEST", "link_or_copy", "publish", "read_json", "remove"),
            *("sha256", "write_json", "check_digest"),
        },
        "reads and writes what it is given; tests/core/test_files.py holds it to the byte",
    ),
    "adapterbench.core.registry": ({"keys", "load"}, "finds a module that is a dependency itself"),
    "adapterbench.runs.processes": (
        {"process_state", "share"},
        "says who does what, not what is done",
    ),
    "adapterbench.runs.workers": (
        {"parallel_map"},
        "says which process of this machine does what, not what is done",
    ),
    "adapterbench.runs.program": (
        {"run", "LOADER_WORKER"},
        "command line, logging and exit codes",
    ),
    "adapterbench.runs.record": (
        {"stage_record", "is_main_process"},
        "notes what ran; no stage reads it",
    ),
    "adapterbench.runs.resume": (
        {"exclusive_run", "resume_path"},
        "says where the state of a killed run lies",
    ),
}
"""Modules that change no output: what a stage may take of each, and why an edit re-runs nothing."""

CONFIG = "adapterbench.core.config"
"""What it parses are params of the stage, so an edit to it re-runs nothing either."""

LOADS = {
    "stages/fetch.py": ["adapterbench.data.sources.{data.source}"],
    "stages/backbone.py": ["adapterbench.backbone.sources.{backbone.source}"],
    "stages/neutral_evaluator.py": ["adapterbench.backbone.sources.{neutral_evaluator.source}"],
    "adapterbench.backbone.bases": [
        f"adapterbench.backbone.sources.{source}"
        for source in ("hub", "local", "published", "wheel")
    ],
    "adapterbench.scoring.evaluator": [
        f"adapterbench.scoring.evaluators.{kind}"
        for kind in registry.keys("adapterbench.scoring.evaluators")
    ],
    "adapterbench.data.prepare": ["adapterbench.data.sources.{data.source}"],
    "adapterbench.pretraining.hold_out": ["adapterbench.data.sources.{data.source}"],
    "adapterbench.sampling.methods": [
        f"adapterbench.sampling.training_free.{name}"
        for name in registry.keys("adapterbench.sampling.training_free")
    ],
    "adapterbench.adapters.core.variant": [
        "adapterbench.adapters.projections.{item.projection}",
        "adapterbench.adapters.attention.{item.attention}",
    ],
}
"""Who loads a module by the name that a parameter gives (`item`: the row of the variant)."""

READS = {
    "adapterbench.report.page": SRC / "adapterbench/report/templates",
    "adapterbench.study.answers.report": SRC / "adapterbench/study/answers/templates",
}
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


FULL: dict[str, list[str] | dict[str, Any]] = {
    "further_split": ["novel"],
    "layers": ["ip_adapter"],
    "sample_training_free": {"img2img": {}, "reference_only": {}},
    "score_training_free": {"img2img": {}, "reference_only": {}},
}
"""Stages of the full evaluation alone, and what each is run for."""


@cache
def stages() -> dict[str, Any]:
    """The stages of the three pipelines as DVC resolves them, by name such as `train@ip_adapter`.

    Some run in the full evaluation alone; here they have its splits and methods. The study has
    many stages of a kind, which differ in numbers alone: the last of each kind stands for all.
    """
    found: dict[str, Any] = {}
    for folder, prefix in (
        (ROOT, ""),
        (ROOT / "backbone", "backbone/"),
        (ROOT / "study", "study/"),
    ):
        with Repo(str(folder)) as repo:
            file = ProjectFile(repo, str(folder / "dvc.yaml"))
            if folder == ROOT:
                for name, items in FULL.items():
                    file.contents["stages"][name]["foreach"] = items
            one_each = {name.partition("@")[0]: name for name in file.stages}
            names = one_each.values() if prefix == "study/" else file.stages
            found |= {prefix + name: file.stages[name] for name in names}
    return found


def variant(stage: str) -> dict[str, Any] | None:
    """The row of a stage that belongs to a variant."""
    folder = ROOT / "study" if stage.startswith("study/") else ROOT
    rows = yaml.safe_load((folder / "params.yaml").read_text())["variants"]
    row: dict[str, Any] | None = rows.get(stage.partition("@")[2])
    return row


def script(stage: str) -> Path:
    """The script that a stage runs."""
    found = re.fullmatch(r"python (\S*stages/launch\.py) (\S+\.py)( .*)?", stages()[stage].cmd)
    assert found, f"{stage} does not run a script through the launcher"
    folder = Path(stages()[stage].wdir)
    assert (folder / found[1]).resolve() == ROOT / "stages/launch.py"
    return (folder / found[2]).resolve()


def used(stage: str) -> set[Path]:
    """Every file of code that a stage imports or reads and that may change what it makes."""
    row = variant(stage)
    sections = {key: value for key, value in params().items() if isinstance(value, dict)}
    scope = {key: Namespace(value) for key, value in {**sections, "item": row}.items()}
    todo, seen = [script(stage)], set()
    while todo:
        path = todo.pop()
        name = name_of(path)
        if path in seen or name in INERT or name == CONFIG:
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


def code(stage: str) -> list[Path]:
    """The files and folders of code that a stage depends on in dvc.yaml."""
    paths = [
        Path(dep.fs_path).resolve()
        for dep in stages()[stage].deps
        if not isinstance(dep, ParamsDependency)
    ]
    return [path for path in paths if path.is_relative_to(SRC) or path.suffix == ".py"]


def listed(paths: Iterable[Path]) -> list[str]:
    """Paths as dvc.yaml names them."""
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


@pytest.mark.parametrize("stage", sorted(stages()))
def test_a_stage_depends_on_the_code_that_it_runs(stage: str) -> None:
    files, named = used(stage), code(stage)
    missing = [file for file in files if not any(file.is_relative_to(path) for path in named)]
    assert listed(missing) == []
    needless = [path for path in named if not any(file.is_relative_to(path) for file in files)]
    assert listed(needless) == [], "an edit would re-run the stage for nothing"
    assert len(named) <= 10


def taken(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of all that a file takes from other modules of the package."""
    nodes = list(statements(ast.parse(path.read_text())))
    known = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (full := f"{node.module}.{alias.name}") in modules():
                    known[alias.asname or alias.name] = full
                else:
                    yield node.module or "", alias.name
    for node in nodes:
        if isinstance(node, ast.Attribute) and (module := known.get(ast.unparse(node.value))):
            yield module, node.attr


def test_what_is_taken_from_inert_modules_is_inert() -> None:
    """Such as no measured number of the record, which the table would then show."""
    files = set().union(*(used(stage) for stage in stages()))
    for path in (file for file in files if file.suffix == ".py"):
        for module, name in taken(path):
            if module in INERT:
                assert name in INERT[module][0], f"{name_of(path)} takes {name} of {module}"


def test_parameters_have_no_defaults_in_the_code() -> None:
    """A default could be edited without a change of any stage's params."""
    defaults = [
        f"{section.__name__}.{name}"
        for section in vars(config).values()
        if isinstance(section, type) and issubclass(section, config.Section)
        for name, field in section.model_fields.items()
        if not field.is_required() and field.default is not None  # None: left out
    ]
    assert defaults == []


READERS = {
    r'\bload_params\([\w.]+, (?:"(\w+)"|\w)': None,
    r'\bread_params\([\w.]*\)\.get\("(\w+)"': None,
    r"\bload_bases\(": {"bases"},
    r"\bload_rows\(": {"variants"},
    r"\bload_training_free\(": {"training_free"},
    r"\bload_train\(": {"variants", "train"},
}
"""How code reads sections of params.yaml; None: those that the call names, or the stage's item."""


@pytest.mark.parametrize("stage", sorted(stages()))
def test_sections_that_a_stage_reads_are_its_params(stage: str) -> None:
    text = "\n".join(path.read_text() for path in used(stage) if path.suffix == ".py")
    own = {r"\bload_variant\(": {"variants"}} if variant(stage) else {}  # a floor has no row
    read = {
        name
        for pattern, names in (READERS | own).items()
        for found in re.finditer(pattern, text)
        for name in names or {found[1] or stage.partition("@")[2]}
    }
    declared = {
        name.partition(".")[0]
        for dep in stages()[stage].deps
        if isinstance(dep, ParamsDependency)
        for name in dep.params
    }
    assert read == declared


SOURCES = registry.keys("adapterbench.data.sources")


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_needs_no_more_code_than_its_stages_name(source: str) -> None:
    """`dvc.yaml` names the same folder whichever source it is; the test above takes the default."""
    needed = imports(modules()[f"adapterbench.data.sources.{source}"]) - INERT.keys() - {CONFIG}
    own = ("adapterbench.data.", "adapterbench.formats.")
    assert {name for name in needed if not name.startswith(own)} == set()


def test_every_stage_is_described() -> None:
    assert [name for name, stage in stages().items() if not stage.desc] == []


def test_stage_scripts_are_thin() -> None:
    scripts = [
        path for folder in (".", "backbone", "study") for path in ROOT.glob(f"{folder}/stages/*.py")
    ]
    scripts.remove(ROOT / "stages/launch.py")  # starts them, and is no stage
    assert [path for path in scripts if len(path.read_text().splitlines()) > 40] == []


def test_git_ignores_every_output() -> None:
    """DVC's own .gitignore entries come after a run without a failure, inside hashed folders."""
    patterns = (ROOT / ".gitignore").read_text().splitlines()
    ignored = PathSpec.from_lines("gitignore", patterns)
    cached = [out for stage in stages().values() for out in stage.outs if out.use_cache]
    names = [Path(out.fs_path).relative_to(ROOT).as_posix() for out in cached]
    assert [name for name in names if not ignored.match_file(name)] == []


def test_default_variants_are_artifacts_and_curves_of_one_plot() -> None:
    """DVC's `foreach` makes neither, so that dvc.yaml names them."""
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    rows = params()["variants"]
    artifacts = {
        name.replace("_", "-"): ("model", f"models/{name}", [row["projection"], row["attention"]])
        for name, row in rows.items()
    }
    found = {
        name: (artifact["type"], artifact["path"], artifact["labels"])
        for name, artifact in pipeline["artifacts"].items()
    }
    assert found == artifacts
    assert [name for name in artifacts if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)] == []
    [losses] = [plot["loss"] for plot in pipeline["plots"] if "loss" in plot]
    assert losses["y"] == {f"metrics/train/{name}.csv": "loss" for name in rows}


def test_plots_give_the_variants_the_colours_of_the_report() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    [losses] = [plot["loss"] for plot in pipeline["plots"] if "loss" in plot]
    template = json.loads((ROOT / ".dvc/plots/losses.json").read_text())
    colours = template["encoding"]["color"]["scale"]["range"]
    drawn = looks([Path(file).stem for file in losses["y"]])
    assert [colour for colour, _ in drawn.values()] == list(map(to_rgb, colours))[: len(drawn)]


def compose(path: Path, *overrides: str, conf: Path = ROOT / "conf") -> dict[str, Any]:
    """What `dvc exp run -S OVERRIDE ...` writes to params.yaml."""
    compose_and_dump(path, str(conf), None, "config", "", list(overrides))
    composed: dict[str, Any] = yaml.safe_load(path.read_text())
    return composed


def test_params_are_what_conf_composes(tmp_path: Path) -> None:
    compose(tmp_path / "params.yaml")
    # to the byte, so that `dvc exp run` leaves no change in git
    assert (ROOT / "params.yaml").read_text() == (tmp_path / "params.yaml").read_text()


def test_full_evaluation_differs_in_images_and_methods_without_training(tmp_path: Path) -> None:
    full = compose(tmp_path / "params.yaml", "evaluation=full")
    assert full["sample"].pop("items") == 896
    assert full["sample"].pop("images_per_item") > params()["sample"]["images_per_item"]
    assert 4 <= full["score"].pop("kid_subset_size") < 896
    assert full["illustrate"].pop("pairs") > params()["illustrate"]["pairs"]
    sizes = {"items", "images_per_item"}
    assert full["sample"] == {k: v for k, v in params()["sample"].items() if k not in sizes}
    assert {**full["score"], "kid_subset_size": None} == params()["score"]
    pairs = {"pairs": params()["illustrate"]["pairs"]}
    assert {**full["illustrate"], **pairs} == params()["illustrate"]
    assert full["further_splits"] == ["novel"]
    measured = full["layers"].pop("variants")
    assert {**full["layers"], "variants": []} == params()["layers"]
    separable = [name for name, row in full["variants"].items() if row["attention"] != "append"]
    assert measured == separable
    assert params()["training_free"] == {}
    assert list(full["training_free"]) == registry.keys("adapterbench.sampling.training_free")
    changed = ("sample", "score", "illustrate", "further_splits", "layers", "training_free")
    assert {**full, **dict.fromkeys(changed)} == {**params(), **dict.fromkeys(changed)}


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
        "neutral_evaluator": config.BackboneParams,
        "encode": config.EncodeParams,
        "train": config.TrainParams,
        "sample": config.SampleParams,
        "illustrate": config.IllustrateParams,
        "layers": config.LayersParams,
        "score": config.ScoreParams,
        "compare": config.CompareParams,
    }
    assert yaml.safe_load(path.read_text()).keys() == sections.keys() | {
        "about",
        "variants",
        "bases",
        "further_splits",
        "training_free",
    }
    config.load_bases(path)
    for name, section in sections.items():
        config.load_params(section, name, path)
    data = config.load_params(config.DataParams, "data", path)
    source = registry.load("adapterbench.data.sources", data.source)
    config.parse(source.Params, data.fetch, "data.fetch")
    variants = [parse_variant(row, f"variants.{name}") for name, row in rows.items()]
    for name in rows:
        config.load_train(name, path)
    encode = config.load_params(config.EncodeParams, "encode", path)
    assert encode.patches == any(variant.reads_patches for variant in variants)
    for name, fields in config.load_training_free(path).items():
        training_free_method(name, fields)
