"""The demo over the toy backbone, served on this machine, and a Chromium to visit it."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image
from toy_backbone import SAMPLE

from adapterbench.demo import upload
from adapterbench.demo.server import nothing_left_behind, serve
from adapterbench.report import table
from adapterbench.report.methods import PROTOCOLS

from .visitor import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from toy_backbone import Toy

    from adapterbench.demo.painter import Painter


@pytest.fixture(scope="session")
def painter(toy: "Toy") -> "Painter":
    """One that has a single adapter."""
    from adapterbench.demo.painter import Painter

    return Painter(toy.adapter.parent, {"toy": toy.backbone}, toy.encode_params)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stages `compare` and `figures` leave, in small."""
    folder = tmp_path_factory.mktemp("results")
    rows = pd.DataFrame([dict.fromkeys(table.COLUMNS, 0.123) | {"method": "ip_adapter"}])
    paired = pd.DataFrame(columns=table.PAIRED)
    table.write([table.Comparison(protocol=p, rows=rows, paired=paired) for p in PROTOCOLS], folder)
    (folder / "figures").mkdir()
    Image.new("RGB", (64, 48), "teal").save(folder / "figures" / "pareto.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the demo runs in."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def address(painter: "Painter", toy: "Toy", results: Path, place: Path) -> Iterator[str]:
    """Where the demo is served; it takes small files only, as large ones take the browser long."""
    small = pytest.MonkeyPatch.context()
    with small as patch, chdir(place), nothing_left_behind() as folder:
        patch.setattr(upload, "MAX_BYTES", 2**18)
        from adapterbench.demo.page import build
        from adapterbench.demo.references import references

        page = build(painter, references(toy.shards), SAMPLE, results, folder)
        yield serve(page, "127.0.0.1", free_port(), None)
        page.close(verbose=False)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def chromium() -> str:
    """Path of a Chromium; without one the tests are skipped, or fail where they are required."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        stop = pytest.fail if os.environ.get("BROWSER_TESTS") == "required" else pytest.skip
        stop("the demo is NOT tested, there is no browser: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        # its sandbox wants rights that containers lack
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(address: str, browser: "Browser") -> Callable[[], Visitor]:
    """Open the demo as one more person."""
    return lambda: Visitor(browser.new_context().new_page(), address)


@pytest.fixture(scope="module")
def visitor(visit: Callable[[], Visitor]) -> Visitor:
    """A person whose window the tests share: it takes seconds to open."""
    return visit()
