"""img2dataset against a real web server that misbehaves; what it left out is counted by cause."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adapterbench.config import DataParams, parse
from adapterbench.data.image import MAX_PIXELS, decode
from adapterbench.data.prepare import prepare
from adapterbench.data.sources import urls
from adapterbench.errors import UserError

ROOT = Path(__file__).parents[3]
GOOD = 12
BAD = {
    "gone": "HTTP 404",
    "error": "HTTP 500",
    "loop": "HTTP 302",
    "html": "not a readable image",
    "truncated": "not a readable image",
    "empty": "not a readable image",
    "cut": "connection cut",
    "noai": "disallowed by X-Robots-Tag",
    "bomb": "too many pixels",
    "stalled": "timed out",
    "trickle": "timed out",
}
"""What is wrong with an address, and the cause it is counted under."""


def jpeg(number: int, size: tuple[int, int] = (700, 600)) -> bytes:
    """A picture of its own for every number."""
    x, y = np.meshgrid(*(np.linspace(0, 200, side) for side in size))
    image = Image.fromarray(np.stack([x, y, 0 * x + 20 * number], axis=-1).astype(np.uint8))
    file = BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def bomb() -> bytes:
    """Forty megapixels in some hundred kilobytes."""
    file = BytesIO()
    Image.new("L", (8000, 5000)).save(file, "JPEG")
    return file.getvalue()


class Web(ThreadingHTTPServer):
    """Serves `/good/<number>.jpg` and one address for each row of `BAD`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.closing = threading.Event()
        self.asked: Counter[str] = Counter()
        self.bomb = bomb()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        kind, _, rest = self.path.strip("/").partition("/")
        number = int(rest.partition(".")[0])
        whole = jpeg(number)
        if kind == "moved":
            self.answer(301, b"", Location=f"/good/{number}.jpg")
        elif kind == "good":
            self.answer(200, whole)
        elif kind == "small":
            self.answer(200, jpeg(number, (90, 60)))
        elif kind == "gone":
            self.answer(404, b"not here")
        elif kind == "error":
            self.answer(500, b"")
        elif kind == "loop":
            self.answer(302, b"", Location=self.path)
        elif kind == "html":
            self.answer(200, b"<html>" + b"no picture " * 500)
        elif kind == "truncated":
            self.answer(200, whole[: len(whole) * 2 // 3])
        elif kind == "empty":
            self.answer(200, b"")
        elif kind == "noai":
            self.answer(200, whole, **{"X-Robots-Tag": "noai"})
        elif kind == "bomb":
            self.answer(200, self.server.bomb)
        elif kind == "stalled":
            self.server.closing.wait(60)
        else:  # the length of the whole, the half of its bytes
            self.answer(200, whole[: len(whole) // 2], **{"Content-Length": str(len(whole))})
            if kind == "trickle":
                self.server.closing.wait(60)

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with Web() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def img2dataset(workplace: Path) -> None:
    """The environment of its own, in the folder that the test runs in."""
    environment = ROOT / urls.ENVIRONMENT
    if not (environment / "bin/img2dataset").is_file():
        pytest.skip("no img2dataset here: run `make img2dataset`")
    (workplace / urls.ENVIRONMENT).symlink_to(environment)


def write_lists(folder: Path, train: list[str], validation: list[str]) -> dict[str, Any]:
    """The two lists; the fields of `data.fetch`."""
    for name, addresses in (("train", train), ("validation", validation)):
        lines = [f'a "{name}" picture \'{n}\t{address}\n' for n, address in enumerate(addresses)]
        (folder / f"{name}.tsv").write_text("".join(lines))
    return {
        "train": str(folder / "train.tsv"),
        "validation": str(folder / "validation.tsv"),
        "limit": None,
        "image_size": 512,
        "distributor": "multiprocessing",
        "processes": 1,
        "threads": 8,
        "timeout": 3,
        "retries": 0,
    }


@pytest.mark.slow
@pytest.mark.usefixtures("img2dataset")
def test_good_ones_arrive_and_bad_ones_are_counted(web: Web, workplace: Path) -> None:
    good = [web.url(f"good/{n}.jpg") for n in range(GOOD - 2)]
    good += [web.url("moved/10.jpg"), web.url("small/11.jpg")]
    bad = [web.url(f"{kind}/1.jpg") for kind in BAD]
    absent = ["http://no-such-host.invalid/1.jpg", "http://127.0.0.1:9/1.jpg"]
    values = {
        "source": "urls",
        "fetch": write_lists(workplace, [*good[:8], *bad, *absent], good[8:]),
        "resolution": 32,
        "validation_concepts": None,
        "samples_per_shard": 5,
        "seed": 0,
    }
    data = parse(DataParams, values, "data")
    params = parse(urls.Params, data.fetch, "data.fetch")
    began = time.monotonic()
    urls.fetch(params, workplace / "raw")
    seconds = time.monotonic() - began
    samples = {sample.key: sample for sample in urls.read(workplace / "raw", params)}
    manifest = prepare(data, workplace / "raw", workplace / "shards")
    print(f"\n{seconds:.1f} s; kept {manifest['splits']}; dropped {manifest['dropped']}")

    expected = Counter(BAD.values()) + Counter({"no such host": 1, "cannot connect": 1})
    assert manifest["dropped"] == dict(expected)
    assert [manifest["splits"][name]["samples"] for name in ("train", "validation")] == [8, 4]
    assert not list((workplace / ".resume").iterdir())
    assert {path.suffix for path in (workplace / "raw").rglob("*.*")} == {".tar", ".parquet"}
    sizes = {s.meta["url"]: decode(s.image).size for s in samples.values() if s.image}
    assert {sizes[url] for url in good[:11]} == {(597, 512)}
    assert sizes[good[11]] == (90, 60)
    captions = {s.captions for s in samples.values() if s.split == "train"}
    assert ('a "train" picture \'0',) in captions


@pytest.mark.slow
@pytest.mark.usefixtures("img2dataset")
def test_a_killed_download_goes_on(
    web: Web, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "PER_TAR", 3)
    addresses = [web.url(f"good/{n}.jpg") for n in range(9)]
    params = parse(urls.Params, write_lists(workplace, addresses, addresses[:1]), "data.fetch")
    published = urls.publish

    def killed(path: Path) -> Any:
        if not (workplace / "killed").exists():
            (workplace / "killed").touch()
            for stats in sorted(workplace.glob(".resume/*/tars/*_stats.json"))[1:]:
                stats.unlink()  # as if it had died in the second tar
            raise KeyboardInterrupt
        return published(path)

    monkeypatch.setattr(urls, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        urls.fetch(params, workplace / "raw")
    first = dict(web.asked)
    urls.fetch(params, workplace / "raw")
    again = {path for path, times in web.asked.items() if times > first.get(path, 0)}
    assert again == {f"/good/{n}.jpg" for n in range(3, 9)} | {"/good/0.jpg"}  # 0: validation
    assert sum(s.split == "train" for s in urls.read(workplace / "raw", params)) == 9


def test_the_limit_of_pixels_is_that_of_the_pipeline() -> None:
    assert urls.MAX_PIXELS == MAX_PIXELS


@pytest.mark.usefixtures("workplace")
def test_without_the_environment_is_one_line(tmp_path: Path) -> None:
    params = urls.Params(**write_lists(tmp_path, [], []))
    with pytest.raises(UserError, match=r"has no img2dataset: run `make img2dataset`"):
        urls.fetch(params, tmp_path / "raw")


def stand_in(folder: Path, script: str = "exit 0") -> None:
    """A program in img2dataset's place."""
    program = folder / urls.ENVIRONMENT / "bin/img2dataset"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_missing_list_is_one_line(workplace: Path) -> None:
    stand_in(workplace)
    values = write_lists(workplace, ["http://x/1"], ["http://x/2"])
    (workplace / "validation.tsv").unlink()
    with pytest.raises(UserError, match=r"validation\.tsv is missing: download it, or set data"):
        urls.fetch(urls.Params(**values), workplace / "raw")


@pytest.mark.parametrize("text", ["", "caption alone\n", "<html>\n<head>\tx\n"])
def test_what_is_no_list_is_one_line(workplace: Path, text: str) -> None:
    stand_in(workplace)
    values = write_lists(workplace, [], ["http://x/2"])
    (workplace / "train.tsv").write_text(text)
    with pytest.raises(UserError, match=r"train\.tsv (is not a list|cannot be read)") as caught:
        urls.fetch(urls.Params(**values), workplace / "raw")
    assert "\n" not in str(caught.value)


def test_work_left_undone_is_one_line_whatever_the_exit_code(workplace: Path) -> None:
    stand_in(workplace)
    values = write_lists(workplace, ["http://x/1"], ["http://x/2"]) | {"distributor": "ray"}
    with pytest.raises(UserError, match=r"made 0 of 1 tars .*exit code 0.* has ray, and run again"):
        urls.fetch(urls.Params(**values), workplace / "raw")
    assert not (workplace / "raw").exists()


def test_settings_reach_img2dataset(workplace: Path) -> None:
    stand_in(workplace, 'echo "$OPENCV_IO_MAX_IMAGE_PIXELS $@" > asked')
    values = write_lists(workplace, ["http://x/1", "http://x/2"], ["http://x/3"])
    with pytest.raises(UserError):
        urls.fetch(
            urls.Params(**values | {"distributor": "pyspark", "limit": 1}), workplace / "raw"
        )
    asked = (workplace / "asked").read_text().split()
    assert asked[0] == str(MAX_PIXELS)
    assert {"--distributor=pyspark", "--resize_only_if_bigger=True", "--timeout=3"} < set(asked)
    [table] = workplace.glob(".resume/*/urls.parquet")
    assert list(pd.read_parquet(table)["url"]) == ["http://x/1"]


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("HTTP Error 403: Forbidden", "HTTP 403"),
        ("<urlopen error timed out>", "timed out"),
        ("The read operation timed out", "timed out"),
        ("<urlopen error [Errno -2] Name or service not known>", "no such host"),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", "no such host"),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify fa", "TLS failed"),
        ("[Errno 104] Connection reset by peer", "connection cut"),
        ("Remote end closed connection without response", "connection cut"),
        ("IncompleteRead(100 bytes read, 11 more expected)", "connection cut"),
        ("<urlopen error [Errno 111] Connection refused>", "cannot connect"),
        ("Image decoding error", "not a readable image"),
        ("OpenCV(4.14) :-1: error: (-215:Assertion failed) !buf.empty()", "not a readable image"),
        ("image area too large", "too many pixels"),
        ("unknown url type: 'x'", "download failed"),
    ],
)
def test_messages_become_causes_that_can_be_counted(message: str, cause: str) -> None:
    assert urls.cause(message) == cause


def test_failures_are_samples_without_picture(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    rows = [
        ("1", "b", "failed_to_download", "HTTP Error 404: Not Found"),
        ("0", "a", "success", None),
    ]
    table = pd.DataFrame(rows, columns=["key", "caption", "status", "error_message"])
    table.to_parquet(tmp_path / "00000.parquet")
    [sample] = urls.failures(tmp_path / "00000.parquet", "train")
    assert (sample.key, sample.split, sample.problem) == ("train-1", "train", "HTTP 404")
    assert sample.captions == ("b",)
