"""The tests' tree is that of the package: where a module is tested, and why not in its namesake."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layout import folder, imports, modules, says_nothing

TESTS = Path(__file__).parent

COVERED: dict[str, tuple[set[str], str]] = {
    "report/test_page.py": ({"report.embedded"}, "a page has its figures inside"),
    "study/answers/test_report.py": ({"study.answers.figures"}, "what the report shows"),
    "study/runs/test_run.py": ({"study.runs.files"}, "what a run leaves"),
    "study/test_budget.py": ({"study.params"}, "what is run is what is planned"),
    "adapters/projections/test_projections.py": (
        {
            f"adapters.projections.{name}"
            for name in ("feedforward", "linear", "low_rank", "mlp", "residual")
        },
        "an equation each, of a line",
    ),
    "adapters/attention/test_decoupled.py": (
        {"adapters.core.branch"},
        "the contract of an attention shows in what attends; its two ways also in the other files",
    ),
    "exchange/test_parity.py": (
        {"adapters.projections.resampler"},
        "it is diffusers' own, and has to do what the original does",
    ),
    "illustrating/test_illustrate.py": (
        {"backbone.bases", "backbone.fetch", "illustrating.scores"},
        "a base is brought to be drawn with, and what is drawn to be scored",
    ),
    "cli/test_export.py": (
        {"cli.adopt", "cli.encoder", "cli.options", "cli.paths"},
        "an adapter leaves and comes back by commands that are each other's inverse",
    ),
    "cli/test_plan.py": (
        {"cli.estimate", "cli.plan_table"},
        "the three parts of one command: numbers, lines, options",
    ),
    "cli/test_upload.py": ({"cli.card"}, "the card is what a visitor of the hub reads"),
    "cli/test_variants.py": ({"cli.main"}, "commands run as the program has them"),
    "data/sources/test_emoji.py": ({"data.emoji_sets"}, "it reads what that source downloads"),
    "data/sources/test_local.py": ({"data.tables"}, "tables are read for that source alone"),
    "demo/test_server.py": (
        {"demo.connections", "demo.hosts"},
        "they are promises of the running server",
    ),
    "demo/test_page.py": (
        {
            f"demo.{name}"
            for name in (
                *("controls", "downloads", "form", "html", "image_tabs", "inputs", "masks"),
                *("progress", "results", "results_table", "tiles", "trade_offs"),
                "views",
            )
        },
        "pieces of the page, as a browser has them",
    ),
    "demo/test_generator.py": (
        {"demo.prompting"},
        "what an image prompt is given shows in the image",
    ),
    "demo/test_application.py": (
        {"demo.settings"},
        "the limits of what can be set hold where a request comes in",
    ),
    "encoding/test_encode.py": (
        {f"encoding.{name}" for name in ("captions", "encoders", "reading", "shards")},
        "the one stage that the folder is, held to calls of the encoders by hand",
    ),
    "exchange/test_settings.py": (
        {f"exchange.{name}" for name in ("embeddings", "masks", "presets", "reader", "schedule")},
        "what an image prompt takes, in images that a pipeline makes",
    ),
    "exchange/test_diffusers.py": (
        {"exchange.blocks"},
        "names of blocks mean what diffusers means by them",
    ),
    "exchange/test_vision.py": ({"frozen.towers"}, "weights by other names make the same vectors"),
    "frozen/test_load.py": ({"frozen.trial"}, "a network is tried as it is loaded"),
    "illustrating/test_layers.py": (
        {"illustrating.aspects"},
        "scores of what a layer carries, held to a plain loop over images",
    ),
    "illustrating/test_pairs.py": ({"illustrating.drawing"}, "how every pair is drawn"),
    "pretraining/test_networks.py": (
        {f"pretraining.{name}" for name in ("images", "run", "unet", "vae")},
        "images, VAE and UNet are each trained on what the one before makes",
    ),
    "report/test_figures.py": (
        {"report.illustrations", "report.sweep"},
        "read for one figure, which shows whether it was read rightly",
    ),
    "report/test_markdown.py": (
        {"report.measured", "report.sheets"},
        "a table's text, and what stands beside it",
    ),
    "report/test_table.py": ({"report.methods"}, "rows, their order and names are the table's"),
    "stages/test_report.py": (
        {"report.captioned_figures", "report.captions", "report.provenance"},
        "the stage runs what they list, and the page that it leaves has them all",
    ),
    "stages/test_launch.py": ({"runs.launch"}, "as the script that starts every stage uses it"),
    "runs/test_follow.py": ({"runs.flush"}, "it waits for the follower"),
    "runs/test_follower.py": (
        {"runs.mlflow_runs", "runs.mlflow_store"},
        "what a server holds after records were sent is what they say",
    ),
    "scoring/test_scores.py": (
        {"scoring.evaluators.open_clip"},
        "scores by the CLIP are held to open_clip alone",
    ),
    "training/test_adapter.py": (
        {"training.batches"},
        "what is gathered ahead shows in the trained weights",
    ),
}
"""By file of tests: modules without a file of their own, and why they are tested together there."""

BESIDE = {
    "encoding/test_live_texts.py": "a mode of the stage, through encoding, training and sampling",
    "exchange/test_contract.py": "combinations of all that diffusers has",
    "exchange/test_sdxl.py": "the folder's modules on another base model",
    "sampling/test_sdxl.py": "the stages over another base model, one after another",
    "training/test_full_size.py": "the same at the size of Stable Diffusion",
    "training/test_full_size_sdxl.py": "and of SDXL",
    "training/test_processes.py": "the same in two processes",
}
"""Files of a folder of the package that test more than a module of it, and what."""

OTHERS = {"pipeline", "stages"}
"""Folders of tests of what is no part of the package."""


def path_of(module: str) -> str:
    """Where a module's own tests stand."""
    *folders, name = module.split(".")
    return "/".join([*folders, f"test_{name}.py"])


def coded() -> list[str]:
    """Modules that hold code, without the package's name."""
    return sorted(
        name.removeprefix("adapterbench.")
        for name, path in modules().items()
        if folder(name) not in {"", "__main__"} and not name.endswith("__main__")
        if not says_nothing(path)
    )


def files() -> Iterator[str]:
    """Files of tests in folders of the package."""
    for path in TESTS.rglob("test_*.py"):
        name = path.relative_to(TESTS)
        if len(name.parts) > 1 and name.parts[0] not in OTHERS:
            yield name.as_posix()


TOGETHER = {module: file for file, (rows, _) in COVERED.items() for module in rows}


@pytest.mark.parametrize("module", coded())
def test_a_module_has_a_namesake_or_a_row(module: str) -> None:
    assert (TESTS / path_of(module)).is_file() != (module in TOGETHER)


def test_every_row_is_of_a_module() -> None:
    assert TOGETHER.keys() - set(coded()) == set()
    assert len(TOGETHER) == sum(len(rows) for rows, _ in COVERED.values())


def test_every_file_has_a_module_or_a_row() -> None:
    own = {path_of(module) for module in coded()}
    assert set(files()) - own - COVERED.keys() == BESIDE.keys()
    assert not (own & BESIDE.keys())


def reached(file: Path) -> set[str]:
    """Modules that a file imports, or that those import; its fixtures and toys included."""
    own = {path: name.removeprefix("adapterbench.") for name, path in modules().items()}
    todo = [file, TESTS / "conftest.py", file.with_name("conftest.py")]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in seen and path.is_file():
            seen.add(path)
            todo += [modules()[name] for name in imports(path)] if path in own else beside(path)
    return {own[path] for path in seen & own.keys()}


def beside(path: Path) -> Iterator[Path]:
    """What a file of tests imports: modules of the package, and other files of tests."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        root = path.parent if isinstance(node, ast.ImportFrom) and node.level else TESTS
        for name in names:
            yield modules().get(name, root / f"{name.replace('.', '/')}.py")


BY_NAME = re.compile(r"adapters\.(projections|attention)\.|scoring\.evaluators\.")
"""Modules that others load by the name that a parameter gives."""


SCRIPTS = {
    "stages/test_launch.py": ("launch.py",),
    "stages/test_report.py": ("compare.py", "figures.py"),
}
"""Stages that a file of tests runs as programs, and imports nothing of."""


@pytest.mark.parametrize("file", sorted(COVERED))
def test_a_file_reaches_what_its_row_says(file: str) -> None:
    files = [TESTS.parent / "stages" / name for name in SCRIPTS.get(file, ())] or [TESTS / file]
    found = set[str]().union(*map(reached, files))
    assert {name for name in COVERED[file][0] if not BY_NAME.match(name)} - found == set()
