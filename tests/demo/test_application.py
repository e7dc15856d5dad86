"""The demo as programs use it, which send what its page never would."""

import json
from collections.abc import Callable, Iterator
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pandas as pd
import pytest
from PIL import Image
from toy_backbone import toy_image

from .program import Program
from .visitor import png

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from adapterbench.demo.page import Page
    from adapterbench.demo.upload import Uploads

Call = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def short_streams() -> Iterator[None]:
    """A stream of events ends after the last one, not seconds later: a program reads it whole."""
    from adapterbench.demo import application

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "LINGER_SECONDS", 0)
        yield


@pytest.fixture(scope="module")
def http(app: "Starlette") -> Iterator["TestClient"]:
    from .small import clients

    with clients(app) as client:
        yield client


@pytest.fixture(scope="module")
def program(http: "TestClient", page: "Page") -> Program:
    """One whose session has an image prompt."""
    program = Program(http, page, "program")
    program.call("picked", event={"index": 0})
    return program


def files(folder: Path) -> set[Path]:
    """All files below a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("label", "value", "told"),
    [
        ("Text", "a" * 301, "Text is"),
        ("Text", "a" * 60_000, "at most 300 characters"),
        ("Text", {"a": 1}, "Text is"),
        ("Negative text", ["a"], "Negative text is"),
        ("Negative text", "a" * 301, "at most 300 characters"),
        ("Seed", -5, "Seed is -5"),
        ("Seed", 2**32, "Seed is 4294967296"),
        ("Seed", 0.5, "Seed is 0.5"),
        ("Seed", 10**300, "Seed is"),
        ("Seed", "x" * 1000, "Seed is"),
        ("Scale of image 1", 1.6, "Scale of image 1 is 1.6"),
        ("Scale of image 1", -0.1, "Scale of image 1 is -0.1"),
        ("Scale of image 1", 1e999, "Not a request of this page"),
        ("Scale of image 1", float("nan"), "Not a request of this page"),
        ("Scale of image 1", None, "Scale of image 1 is None"),
        ("Scales of image 1", "0.4, nan", "Scale is nan"),
        ("Scales of image 1", "1e999", "Scale is inf"),
        ("Scales of image 1", "0, 9", "Scale is 9.0"),
        ("Scales of image 1", "a" * 121, "write up to 6 numbers"),
        ("Scales of image 1", [0.5], "write up to 6 numbers"),
        ("Seeds", "1 2 3 4 5 6 7", "Seeds has 7 numbers"),
        ("Seeds", "-1", "Seed is -1"),
        ("Seeds", 7, "write up to 6 numbers"),
        ("Start", 1, "Start is 1.0 and end is 1.0: start must come before end"),
        ("Start", float("nan"), "Not a request of this page"),
        ("Start", -0.1, "Start is -0.1"),
        ("End", 0, "start must come before end"),
        ("End", 1.1, "End is 1.1"),
        ("End", "1; 2", "End is '1; 2'"),
        ("Layers", "layout", "has no preset 'layout'"),
        ("Layers", "../style", "has no preset '../style'"),
        ("Layers", 7, "Layers is 7"),
        ("Images that are not square", "stretch", "Fit is 'stretch'"),
        ("Guidance", 100, "Guidance scale is 100"),
        ("Steps", 51, "Steps is 51"),
        ("Steps", 10**9, "Steps is 1000000000"),
        ("Steps", 0, "Steps is 0"),
        ("Base model", "../toy", "Base model is '../toy': choose one of toy"),
        ("Base model", 7, "Base is 7"),
        ("Adapters, side by side", [], "tick at least one adapter"),
        ("Adapters, side by side", 7, "tick at least one adapter"),
        ("Adapters, side by side", ["../toy", {}, None], "tick at least one adapter"),
    ],
)
def test_values_that_the_page_does_not_offer(
    label: str, value: object, told: str, program: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    joined = program.join("generate", {label: value})
    error = program.result()["error"] if joined.status_code == 200 else joined.json()["detail"]
    assert told in error.replace("&#x27;", "'")
    assert len(error) < 300
    assert "Traceback" not in capfd.readouterr().err


def test_text_of_the_greatest_length(program: Program) -> None:
    output = program.call("generate", {"Text": "ä" * 300, "Negative text": "a" * 300})
    assert "error" not in output


def test_infinity_and_nan_do_not_pass_the_settings_either() -> None:
    from adapterbench.core.errors import UserError
    from adapterbench.demo.settings import parse_settings

    good: dict[str, Any] = {"method": "", "base": "toy", "control": None}
    good |= {"text": "", "negative_text": "", "guidance_scale": 3, "steps": 2, "seed": 0}
    image = {"caption": "a", "sha256": "", "scale": 1}
    good["images"] = [image]
    assert parse_settings(**good).images[0].scale == 1
    for value in (float("nan"), float("inf"), -float("inf")):
        bad: list[dict[str, Any]] = [{"images": [image, image | {"scale": value}]}]
        bad += [{name: value} for name in ("guidance_scale", "steps", "seed", "start", "end")]
        for changes in bad:
            with pytest.raises(UserError, match=r"is -?(nan|inf): "):
                parse_settings(**good | changes)
    with pytest.raises(UserError, match="Images is "):
        parse_settings(**good | {"images": [image] * 4})


@pytest.mark.parametrize(
    "event", [None, "x", 7, [0], {}, {"index": -1}, {"index": 99}, {"index": "0"}, {"index": True}]
)
def test_events_that_the_page_does_not_send(
    event: object, http: "TestClient", page: "Page", capfd: pytest.CaptureFixture[str]
) -> None:
    stranger = Program(http, page, "stranger")
    for gallery in ("picked", "select", "take_example"):
        assert stranger.call(gallery, event=event)["error"] == "That image is no longer there"
    assert "upload the image again" in stranger.call("accept", event=event)["data"][1]
    assert "Traceback" not in capfd.readouterr().err


def test_a_forgotten_session_has_no_image_prompt(http: "TestClient", page: "Page") -> None:
    """It would generate from another image than its page shows."""
    output = Program(http, page, "forgotten").call("generate")
    assert output["error"].startswith("There is no image prompt yet")


def a_file(path: object) -> dict[str, Any]:
    """A file as Gradio's frontend names one that was uploaded."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}


def test_no_input_names_a_file(
    program: Program, workspace: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The temporary folder as an upload used to break the end; Gradio fetches addresses, too."""
    (place / "secret.svg").write_text("secret")
    before = files(workspace)
    for path in (workspace, place / "secret.svg", "/etc/passwd", "http://127.0.0.1:1/", ""):
        for value in (a_file(path), [a_file(path)], {"a": [a_file(path)]}, {"path": str(path)}):
            for label in ("Text", "Scale of image 1", "Base model", "Seeds", "Layers"):
                output = program.call("generate", {label: value})
                assert output["error"] == "No input of this page is a file"
    assert files(workspace) == before
    assert program.http.get(f"/gradio_api/file={place / 'secret.svg'}").status_code == 403
    (place / "secret.svg").unlink()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("ending", ["", "?x=1", "/"])
def test_routes_that_the_page_does_not_need(ending: str, http: "TestClient") -> None:
    """Some of Gradio's write files, fetch addresses or call functions past the queue."""
    for path in (
        "api/generate",
        "call/generate",
        "call/v2/generate",
        "component_server",
        "deep_link",
        "file/etc/passwd",
        "process_recording",
        "proxy=http://a.hf.space/",
        "run/generate",
        "stream/a",
        "vibe-code",
        "vibe-edit",
    ):
        for method in ("GET", "POST"):
            answer = http.request(method, f"/gradio_api/{path}{ending}", json={})
            assert answer.status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/{workspace}/../../../etc/passwd",
        "/gradio_api/file=/{workspace}/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=/{workspace}",
        "/gradio_api/file=//example.org/a.png",
        "/gradio_api/file=http://example.org/a.png",
        "/gradio_api/file=https:/example.org/a.png",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file=etc/passwd",
        "/gradio_api/file=/%00",
        "/gradio_api/file=/" + "a" * 5000,
        "/static/..%2f..%2f..%2froutes.py",
        "/assets/%2e%2e/%2e%2e/index.html",
        "/svelte//etc/passwd",
    ],
)
def test_no_path_leads_to_other_files(path: str, http: "TestClient", workspace: Path) -> None:
    path = path.format(workspace=str(workspace).lstrip("/"))
    assert http.get(path).status_code in (403, 404)
    assert http.post(path).status_code in (404, 405)


def upload(http: "TestClient", name: str, data: bytes) -> Any:
    """Post an image's file."""
    return http.post("/gradio_api/upload", files={"files": (name, data, "image/png")})


def test_an_upload_is_never_on_the_disk(http: "TestClient", page: "Page", workspace: Path) -> None:
    before = files(workspace)
    taken = upload(http, "ring.png", png(toy_image("ring", "red")))
    assert taken.status_code == 200
    program = Program(http, page, "uploading")
    (token,) = taken.json()
    assert 'class="caption">ring.png' in program.call("accept", event={"token": token})["data"][1]
    again = program.call("accept", event={"token": token})["data"][1]
    assert "upload the image again" in again
    assert "<img" not in again  # a refused upload leaves no image in force
    assert program.call("generate")["error"].startswith("There is no image prompt yet")
    assert files(workspace) == before


def painted(http: "TestClient", program: Program, image: Image.Image) -> Any:
    """Upload a mask of the first image and hand it in."""
    (token,) = upload(http, "mask.png", png(image)).json()
    return program.call("accept_mask", event={"token": token})


def archived(program: Program) -> dict[str, bytes]:
    """Files of the archive of a session, by name."""
    output = program.call("archive")
    with ZipFile(output["data"][0]["path"]) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_mask_is_an_upload(http: "TestClient", page: "Page") -> None:
    """Bounded and decoded like others, then black and white at the size of a mask."""
    program = Program(http, page, "painting")
    program.call("picked", event={"index": 0})
    grey = Image.new("RGB", (100, 50), "white")
    grey.paste((100, 100, 100), (0, 0, 50, 50))
    assert "data:image" in painted(http, program, grey)["data"][1]
    program.call("generate")
    files = archived(program)
    (image,) = json.loads(files["settings.json"])[0]["images"]
    mask = Image.open(BytesIO(files[f"inputs/{image['mask']}.png"]))
    assert (mask.size, mask.mode) == ((256, 256), "L")
    assert [mask.getpixel((x, 128)) for x in (10, 245)] == [0, 255]
    assert painted(http, program, Image.new("L", (8, 8), 0))["data"][1].count("data:") == 0
    program.call("generate")
    newest, *_ = json.loads(archived(program)["settings.json"])
    assert newest["images"][0]["mask"] is None  # nothing painted: everywhere


@pytest.mark.parametrize(
    "event", [None, {}, {"token": "guessed"}, {"token": 7}, {"problem": "<b>" * 200}]
)
def test_a_mask_that_is_no_upload(event: object, http: "TestClient", page: "Page") -> None:
    program = Program(http, page, "not painting")
    program.call("picked", event={"index": 0})
    assert json.loads(program.call("accept_mask", event=event)["data"][1])["mask"] == ""
    assert upload(http, "mask.png", bytes(2**18 + 1)).status_code == 413
    assert upload(http, "mask.png", b"GIF89a").status_code == 422


def test_the_archive_belongs_to_a_session(http: "TestClient", page: "Page") -> None:
    program, other = (Program(http, page, name) for name in ("archiving", "empty"))
    program.call("picked", event={"index": 0})
    program.call("generate", {"Scales of image 1": "0, 1", "Seeds": "3, 4"})
    files = archived(program)
    settings = json.loads(files["settings.json"])
    made = [(entry["images"][0]["scale"], entry["seed"]) for entry in settings]
    assert made == [(0, 3), (1, 3), (0, 4), (1, 4)]
    assert {entry["file"] for entry in settings} < files.keys()
    assert other.call("archive")["error"] == "There are no images yet: generate one"
    assert other.call("use_again")["error"].startswith("There is no image yet")


def test_a_set_of_images_is_kept_within_limits(http: "TestClient", page: "Page") -> None:
    program = Program(http, page, "greedy")
    program.call("picked", event={"index": 0})
    values = {"Scales of image 1": "0 0.1 0.2 0.3 0.4 0.5", "Seeds": "0 1 2 3 4"}
    error = program.call("generate", values)["error"]
    assert error.startswith("30 images with 60 steps in all are too many")


@pytest.mark.parametrize(
    ("function", "values", "told"),
    [
        ("show_table", {"Prompt": "other"}, "Prompt is 'other': choose one of image, image_text"),
        ("show_table", {"Prompt": 7}, "Prompt is 7"),
        ("show_table", {"Filter": "a" * 61}, "write up to 60 characters"),
        ("show_table", {"Filter": ["a"]}, "Filter is ['a']"),
        ("csv", {"Prompt": "../image"}, "Prompt is '../image'"),
        ("csv", {"Filter": {"a": 1}}, "Filter is {'a': 1}"),
        ("show_plot", {"Horizontal axis": "clip"}, "Horizontal axis is 'clip'"),
        ("show_plot", {"Vertical axis": None}, "Vertical axis is None"),
        ("show_plot", {"Vertical axis": "KID"}, "Vertical axis is 'KID'"),
    ],
)
def test_results_that_the_page_does_not_offer(
    function: str,
    values: dict[str, Any],
    told: str,
    http: "TestClient",
    page: "Page",
    capfd: pytest.CaptureFixture[str],
) -> None:
    error = Program(http, page, "reading").call(function, values)["error"]
    assert told in unescape(error)
    assert len(error) < 300
    assert "Traceback" not in capfd.readouterr().err


def test_the_table_that_is_shown_is_the_one_that_is_exported(
    http: "TestClient", page: "Page"
) -> None:
    program = Program(http, page, "reader")
    values = {"Prompt": "image_text", "Filter": " IP-ad", "Floors and ceilings": False}
    shown = program.call("show_table", values)["data"][0]
    assert [line.split("|")[1].strip() for line in shown.splitlines()][2:] == ["IP-Adapter"]
    (file,) = program.call("csv", values)["data"]
    assert file["orig_name"] == "comparison_image_text.csv"
    rows = pd.read_csv(file["path"])
    assert list(rows["method"]) == ["ip_adapter"]
    assert {"clip_i", "clip_i_lo", "clip_i_hi", "trainable_params"} < set(rows)
    nothing = program.call("show_table", {"Filter": "(.*"})["data"][0]
    assert nothing == "No method has that in its name."


def encoded(kind: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "status", "told"),
    [
        ("cut.png", png(toy_image("ring", "red"))[:100], 422, "cut.png: not a readable image. Use"),
        ("empty.png", b"", 422, "empty.png: not a readable image"),
        ("wide.png", png(Image.new("1", (5000, 5000))), 422, "wide.png: too many pixels"),
        ("heavy.png", bytes(2**18 + 1), 413, "heavy.png: too many bytes. Use PNG, JPEG or WebP"),
        ("heavier.png", bytes(2**20), 413, "Content Too Large"),
        ("../../etc/a.png", b"", 422, "a.png: not a readable image"),
        ("C:\\images\\a.png", b"", 422, "a.png: not a readable image"),
    ],
)
def test_refused_uploads(
    name: str, data: bytes, status: int, told: str, http: "TestClient", workspace: Path
) -> None:
    before = files(workspace)
    answer = upload(http, name, data)
    assert (answer.status_code, answer.text.startswith(told)) == (status, True), answer.text
    assert len(answer.text) < 300
    assert files(workspace) == before


def test_forms_that_the_page_does_not_send(http: "TestClient", workspace: Path) -> None:
    before, image = files(workspace), ("a.png", encoded("PNG"), "image/png")
    two = http.post("/gradio_api/upload", files=[("files", image), ("files", image)])
    many = http.post("/gradio_api/upload", files={f"f{n}": image for n in range(100)})
    other = http.post("/gradio_api/upload", files={"other": image})
    text = http.post("/gradio_api/upload", data={"files": "a.png"})
    cut = http.post(
        "/gradio_api/upload",
        content=b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\nabc",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    no_boundary = http.post(
        "/gradio_api/upload", content=b"abc", headers={"content-type": "multipart/form-data"}
    )
    for answer in (two, many, other, text, cut, no_boundary):
        assert 400 <= answer.status_code < 500
        assert len(answer.text) < 300
    assert files(workspace) == before


def test_uploads_that_nobody_uses_are_bounded(http: "TestClient", uploads: "Uploads") -> None:
    image = encoded("PNG")
    tokens = [upload(http, "a.png", image).json()[0] for _ in range(70)]
    assert len(set(tokens)) == 70
    assert [*uploads.waiting] == tokens[-64:]
