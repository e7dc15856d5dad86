"""The documents: their length, links, commands and code hold against the project as it is."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from adapterbench.cli.main import COMMANDS, HELP
from adapterbench.runs.program import program

if TYPE_CHECKING:
    from toy_backbone import Toy

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("backbone/*.md"), *DOCS.rglob("*.md")])
TARGETS = re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
OVERRIDE = re.compile(r"-S '?\+?([a-z_]+)=([a-z_0-9]+)(?= |$|`)")
TO_WRITE = {"NAME", "mine"}
"""Files that the reader is told to write."""


@pytest.fixture(scope="module")
def command() -> TyperGroup:
    """`adapterbench`."""
    group = get_command(program(*COMMANDS, help=HELP))
    assert isinstance(group, TyperGroup)
    return group


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line of a page: of its console blocks, without comments."""
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            yield words[next(i for i, word in enumerate(words) if not re.match(r"\w+=", word)) :]


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:", link):
            target, _, anchor = link.partition("#")
            path = page.parent / target if target else page
            assert path.exists(), link
            assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path, command: TyperGroup) -> None:
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in TARGETS, words
        elif words[0] == "adapterbench":
            name, *arguments = words[1:]
            with command.commands[name].make_context(name, arguments):
                pass  # parsed: options, values and the number of arguments are right
        elif words[:2] == ["python", "-m"]:
            assert find_spec(words[2]), words
    for group, file in OVERRIDE.findall(page.read_text()):
        config = ROOT / "conf" / group
        assert file in TO_WRITE or (config / f"{file}.yaml").is_file(), f"{group}={file}"


def test_every_command_and_option_is_described(command: TyperGroup) -> None:
    sections = re.split(r"^### ", (DOCS / "commands.md").read_text(), flags=re.MULTILINE)
    described = {section.split("\n", 1)[0]: section for section in sections[1:]}
    assert described.keys() == command.commands.keys()
    for name, each in command.commands.items():
        options = [o for p in each.params for o in p.opts if o.startswith("--") and o != "--help"]
        shared = described["variants"] if "Options as above" in described[name] else ""
        assert [o for o in options if f"`{o}`" not in described[name] + shared] == []


def test_every_stage_is_described() -> None:
    page = (DOCS / "stages.md").read_text()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [name for name in stages if not re.search(rf"`{name}(@\w+)?`", page)] == []


def test_every_folder_is_described() -> None:
    page = (DOCS / "architecture.md").read_text()
    drawing = (DOCS / "architecture.svg").read_text()
    folders = [path.parent.name for path in (ROOT / "src/adapterbench").glob("*/__init__.py")]
    assert [name for name in folders if f"`{name}/`" not in page] == []
    assert [name for name in folders if f">{name}/<" not in drawing] == []


def test_the_example_of_a_projection_works() -> None:
    import torch

    code, _ = blocks(DOCS / "new-adapter.md", "python")
    module: dict[str, object] = {"__name__": "example"}
    exec(code, module)
    params = module["Params"](tokens=4, middle=8)  # type: ignore[operator]
    projection = module["build"](params, 24, 32)  # type: ignore[operator]
    assert projection(torch.zeros(2, 24)).shape == (2, 4, 32)


def test_the_example_of_a_source_works(tmp_path: Path) -> None:
    _, code = blocks(DOCS / "new-adapter.md", "python")
    module: dict[str, Any] = {"__name__": "example"}
    exec(code, module)
    (tmp_path / "a cat.png").write_bytes(b"image")
    [sample] = module["read"](tmp_path, None)
    assert (sample.image, sample.captions) == (b"image", ("a cat",))


def test_the_lines_of_the_readme_run(toy: "Toy", workplace: Path) -> None:
    for place, target in {
        "data/backbone": toy.backbone,
        "models/ip_adapter_mlp": toy.adapter,
        "docs": DOCS,
    }.items():
        (workplace / place).parent.mkdir(exist_ok=True)
        (workplace / place).symlink_to(target)
    [code] = blocks(ROOT / "README.md", "python")
    exec(code, {})
    assert (workplace / "out.png").is_file()


def test_the_lines_on_image_prompts_run(toy: "Toy", workplace: Path) -> None:
    from toy_backbone import toy_image

    from adapterbench.exchange.presets import save_presets

    for place, target in {
        "data/backbone": toy.backbone,
        "models/ip_adapter": toy.adapter,
        "models/ip_adapter_lora": toy.adapter,
    }.items():
        (workplace / place).parent.mkdir(exist_ok=True)
        (workplace / place).symlink_to(target)
    presets = workplace / "models/ip_adapter.presets.json"
    save_presets(presets, toy.adapter, "by hand", {"style": {}, "layout": {}})
    toy_image("bar", "red").save("hat.png")
    toy_image("ring", "green").save("fox.png")
    code = "".join(blocks(DOCS / "image-prompts.md", "python"))
    few_steps = 'pipe("a forest", num_inference_steps=3, height=32, width=32, '
    exec(code.replace('pipe("a forest", ', few_steps), {})
    assert (workplace / "prompts.safetensors").is_file()
