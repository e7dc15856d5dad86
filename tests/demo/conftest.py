"""The demo over the toy backbone, served on this machine, and a Chromium to visit it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image
from toy_backbone import SAMPLE

from adapterbench.core.config import PromptParams
from adapterbench.demo import upload
from adapterbench.demo.hosts import known_hosts
from adapterbench.demo.server import listening, temporary_workspace, url
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report import table
from adapterbench.report.methods import BASELINES, contrasts, label
from adapterbench.report.metrics import SCORES

from .visitor import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from starlette.applications import Starlette
    from toy_backbone import Toy

    from adapterbench.demo.generator import ImageGenerator
    from adapterbench.demo.page import Page


@pytest.fixture(scope="session")
def models(toy: "Toy", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single adapter, with a preset of its first layer."""
    from adapterbench.adapters.core.storage import load_adapter
    from adapterbench.exchange.presets import PRESETS, save_presets
    from adapterbench.frozen.load import load_part

    folder = tmp_path_factory.mktemp("models") / "toy"
    shutil.copytree(toy.adapter, folder)
    first, *_ = load_adapter(folder, load_part(toy.backbone, "unet")).layers
    save_presets(folder / PRESETS, folder, "by hand", {"style": {first: 0.5}})
    return folder.parent


@pytest.fixture(scope="session")
def generator(models: Path, toy: "Toy") -> "ImageGenerator":
    """One that has a single adapter."""
    from adapterbench.demo.generator import ImageGenerator

    return ImageGenerator(models, {"toy": toy.backbone}, toy.encode_params)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stages `compare` and `figures` leave, in small."""
    folder = tmp_path_factory.mktemp("results")
    rows = pd.DataFrame(
        [
            dict.fromkeys(table.COLUMNS, 0.123) | {"method": m, "label": label(m), "trained": ""}
            for m in ("ip_adapter", *BASELINES)
        ]
    )
    pairs = pd.DataFrame(
        [
            {
                "method": a,
                "baseline": b,
                "metric": metric.key,
                "difference": 0.1,
                "lo": 0,
                "hi": 0.2,
            }
            for a, b in contrasts(["ip_adapter"])
            for metric in SCORES
        ]
    ).assign(apart=False)
    tables = [
        table.Comparison(protocol=p, rows=rows, paired=pairs.assign(protocol=p)[table.PAIRED])
        for p in PROTOCOLS
    ]
    table.write(tables, folder)
    (folder / "figures").mkdir()
    Image.new("RGB", (64, 48), "teal").save(folder / "figures" / "pareto.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the demo runs in."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def workspace(place: Path) -> Iterator[Path]:
    """The folder that takes the demo's files."""
    with chdir(place), temporary_workspace() as folder:
        yield folder


@pytest.fixture(scope="module")
def uploads() -> Iterator[upload.Uploads]:
    """Where uploads wait; small files only, as large ones take the browser long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "MAX_BYTES", 2**18)
        yield upload.Uploads()


@pytest.fixture(scope="module")
def page(
    generator: "ImageGenerator", toy: "Toy", results: Path, workspace: Path, uploads: upload.Uploads
) -> "Page":
    """The demo's page."""
    from adapterbench.demo.page import build
    from adapterbench.demo.references import examples, references

    offered = references(toy.shards)
    shown = examples(toy.shards, [PromptParams(image="frame", text="a green frame")])
    return build(generator, offered, shown, SAMPLE, results, workspace, uploads)


@pytest.fixture(scope="module")
def app(page: "Page", uploads: upload.Uploads) -> "Starlette":
    """The demo as it is served."""
    from adapterbench.demo.application import application

    return application(page, uploads, known_hosts("127.0.0.1"))


@contextmanager
def served(app: "Starlette") -> Iterator[str]:
    """Serve in a thread; yield the address."""
    from adapterbench.demo.application import server

    with listening("127.0.0.1", 0) as bound:
        address, serving = url(bound), server(app)
        thread = Thread(target=serving.run, args=([bound],))
        thread.start()
        while not serving.started and thread.is_alive():
            sleep(0.01)
        yield address
        serving.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(app: "Starlette") -> Iterator[str]:
    """Where the demo is served."""
    with served(app) as address:
        yield address


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
def visit(address: str, browser: "Browser") -> Callable[..., Visitor]:
    """Open the demo as one more person, in a window of a width in pixels."""

    def open_window(width: int = 1280) -> Visitor:
        context = browser.new_context(viewport={"width": width, "height": 844})
        return Visitor(context.new_page(), address).opened()

    return open_window


@pytest.fixture(scope="module")
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    """A person whose window the tests share: it takes seconds to open."""
    return visit()
