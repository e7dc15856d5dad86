"""img2dataset against a real web server that misbehaves; what it left out is counted by cause."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from adapterbench.core.config import DataParams, parse
from adapterbench.core.errors import UserError
from adapterbench.data.prepare import prepare
from adapterbench.data.sources import urls
from adapterbench.formats.image import MAX_PIXELS, decode

from . import clusters
from .clusters import Cluster

ROOT = Path(__file__).parents[3]
PROGRAMS = ROOT / urls.ENVIRONMENT / "bin"
GOOD = 12
SLOW = 10
"""Seconds before the first answer to `/slow/<number>.jpg`."""
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
    """An image of its own for every number."""
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
        elif kind == "slow":
            if self.server.asked[self.path] == 1:
                self.server.closing.wait(SLOW)
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
            self.answer(200, b"<html>" + b"no image " * 500)
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
def distributor(request: pytest.FixtureRequest) -> str:
    """By itself, unless the test names another."""
    return getattr(request, "param", "multiprocessing")


@pytest.fixture
def img2dataset(workplace: Path, monkeypatch: pytest.MonkeyPatch, distributor: str) -> None:
    """The environment of its own, in the folder that the test runs in."""
    for program, target in urls.TARGETS.items():
        if program in ("img2dataset", distributor) and not (PROGRAMS / program).is_file():
            pytest.skip(f"no {program} here: run `make {target}`")
    (workplace / urls.ENVIRONMENT).symlink_to(ROOT / urls.ENVIRONMENT)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("HOME", str(workplace))  # where Ray keeps a token


@pytest.fixture
def cluster(distributor: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of the distributor's, named to img2dataset."""
    # pytest's own folders are too deep for Ray's sockets
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        clusters.running(distributor, PROGRAMS, Path(folder)) as cluster,
    ):
        for name, value in cluster.variables.items():
            monkeypatch.setenv(name, value)
        yield cluster


def write_lists(folder: Path, train: list[str], validation: list[str]) -> dict[str, Any]:
    """The two lists; the fields of `data.fetch`."""
    for name, addresses in (("train", train), ("validation", validation)):
        lines = [f'a "{name}" image \'{n}\t{address}\n' for n, address in enumerate(addresses)]
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


def data_params(fetch: dict[str, Any]) -> DataParams:
    """The `data` of params.yaml around the fields of `data.fetch`."""
    values = {
        "source": "urls",
        "fetch": fetch,
        "resolution": 32,
        "split": "source",
        "held_out": None,
        "validation_concepts": None,
        "images_per_concept": None,
        "samples_per_shard": 5,
        "seed": 0,
    }
    return parse(DataParams, values, "data")


@pytest.mark.slow
@pytest.mark.usefixtures("img2dataset")
@pytest.mark.parametrize("distributor", ["multiprocessing", "pyspark", "ray"], indirect=True)
def test_good_ones_arrive_and_bad_ones_are_counted(
    web: Web, workplace: Path, distributor: str
) -> None:
    good = [web.url(f"good/{n}.jpg") for n in range(GOOD - 2)]
    good += [web.url("moved/10.jpg"), web.url("small/11.jpg")]
    bad = [web.url(f"{kind}/1.jpg") for kind in BAD]
    absent = ["http://no-such-host.invalid/1.jpg", "http://127.0.0.1:9/1.jpg"]
    values = write_lists(workplace, [*good[:8], *bad, *absent], good[8:])
    data = data_params(values | {"distributor": distributor, "timeout": 20})
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
    assert ('a "train" image \'0',) in captions


@pytest.mark.slow
@pytest.mark.usefixtures("img2dataset")
@pytest.mark.parametrize("distributor", ["pyspark", "ray"], indirect=True)
def test_a_cluster_brings_what_one_machine_brings(
    web: Web, workplace: Path, monkeypatch: pytest.MonkeyPatch, distributor: str, cluster: Cluster
) -> None:
    """Tars of five, so that there are some for every worker."""
    monkeypatch.setattr(urls, "PER_TAR", 5)
    kinds = [*["good"] * 20, "small", "gone", "html", "bomb", "error", "truncated"]
    addresses = [web.url(f"{kind}/{n}.jpg") for n, kind in enumerate(kinds)]
    values = write_lists(workplace, addresses[::2] * 2, addresses[1::2])
    came = {}
    for name in ("multiprocessing", distributor):
        shared = values | {"distributor": name}
        began = time.monotonic()
        urls.fetch(urls.Params(**shared), workplace / name)
        print(f"\n{name}: {time.monotonic() - began:.1f} s")
        came[name] = downloaded(shared, workplace / name)
    assert cluster.workers() == 2
    assert came[distributor] == came["multiprocessing"]
    causes = Counter(got for _, _, got in came[distributor].values() if isinstance(got, str))
    assert causes == {
        "HTTP 404": 1, "HTTP 500": 2, "not a readable image": 3, "too many pixels": 1
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("img2dataset")
@pytest.mark.parametrize(
    ("distributor", "end", "number", "code", "survived"),
    [
        ("multiprocessing", os.killpg, signal.SIGKILL, -signal.SIGKILL, False),
        # what it started writes on
        ("multiprocessing", os.kill, signal.SIGKILL, -signal.SIGKILL, True),
        ("multiprocessing", os.kill, signal.SIGTERM, 130, False),
        ("multiprocessing", os.killpg, signal.SIGINT, 130, False),  # Ctrl-C
        ("pyspark", os.killpg, signal.SIGKILL, -signal.SIGKILL, False),
        ("pyspark", os.kill, signal.SIGTERM, 130, False),
        ("ray", os.killpg, signal.SIGKILL, -signal.SIGKILL, False),
        ("ray", os.kill, signal.SIGTERM, 130, False),
    ],
    indirect=["distributor"],
)
def test_an_ended_download_goes_on(
    web: Web,
    workplace: Path,
    distributor: str,
    end: Callable[[int, int], None],
    number: int,
    code: int,
    survived: bool,
) -> None:
    """It is ended in the second of the validation's tars, when the training's are whole."""
    train = ["good/0.jpg", "gone/1.jpg", "good/2.jpg"]
    validation = ["good/3.jpg", "html/4.jpg", "good/5.jpg"]
    unfinished = ["good/6.jpg", "slow/7.jpg", "gone/8.jpg", "good/9.jpg", "error/1.jpg"]
    lists = [[web.url(path) for path in paths] for paths in (train, validation + unfinished)]
    options = {"distributor": distributor, "threads": 1, "timeout": 60}
    values = write_lists(workplace, *lists) | options
    (workplace / "params.json").write_text(json.dumps(values))
    (workplace / "stage.py").write_text(STAGE)

    running = start("raw")
    assert eventually(lambda: web.asked["/slow/7.jpg"])
    end(running.pid, number)
    assert running.wait() == code
    asked = dict(web.asked)
    # no limit of time: what is to be gone goes, however slow the machine
    assert living(running.pid) if survived else eventually(lambda: not living(running.pid))
    assert start("raw").wait() == 0
    again = {path for path, times in web.asked.items() if times > asked.get(path, 0)}
    assert again == {f"/{path}" for path in unfinished}
    assert eventually(lambda: not living(running.pid))
    assert not list((workplace / ".resume").iterdir())

    assert start("unbroken").wait() == 0
    assert downloaded(values, workplace / "raw") == downloaded(values, workplace / "unbroken")
    manifest = prepare(data_params(values), workplace / "raw", workplace / "shards")
    assert manifest["dropped"] == {"HTTP 404": 2, "HTTP 500": 1, "not a readable image": 1}
    assert [manifest["splits"][name]["samples"] for name in ("train", "validation")] == [2, 5]


STAGE = """
import json
import sys
from pathlib import Path

from adapterbench.data.sources import urls
from adapterbench.runs.program import run


def main(out: Path) -> None:
    urls.PER_TAR = 3
    urls.fetch(urls.Params(**json.loads(Path("params.json").read_text())), out)


run(main)
"""
"""The stage `fetch` with small tars."""


def start(out: str) -> subprocess.Popen[bytes]:
    """Run `STAGE` in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "stage.py", out],
        process_group=0,
        # a background job inherits an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def living(group: int) -> list[psutil.Process]:
    """The processes of a group that still run."""
    return [
        process
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and group_of(process) == group
    ]


def group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def eventually(condition: Callable[[], Any], seconds: float = 600) -> bool:
    """Whether it comes true in that time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def downloaded(fetch: dict[str, Any], raw: Path) -> dict[str, tuple[Any, ...]]:
    """What came of each address: its captions, and the image or what was wrong."""
    samples = urls.read(raw, urls.Params(**fetch))
    return {s.key: (s.split, s.captions, s.image or s.problem) for s in samples}


def leave_tar(tars: Path, name: str, count: int = 2) -> None:
    """The files of a tar of two addresses, one of them without image."""
    tars.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tars / f"{name}.tar", "w") as tar:
        member = tarfile.TarInfo("0.jpg")
        member.size = 20_000
        tar.addfile(member, BytesIO(b"x" * member.size))
    pd.DataFrame({"key": ["0", "1"]}).to_parquet(tars / f"{name}.parquet")
    (tars / f"{name}_stats.json").write_text(json.dumps({"count": count}))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def hole(path: Path) -> None:
    """Zeros where the file began: a power cut may leave them."""
    data = path.read_bytes()
    path.write_bytes(bytes(600) + data[600:])


@pytest.mark.parametrize("file", ["00001.tar", "00001.parquet", "00001_stats.json"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, empty, hole])
def test_what_is_not_whole_is_made_again(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    for name in ("00000", "00001"):
        leave_tar(tmp_path / "tars-old", name)
    damage(tmp_path / "tars-old" / file)
    tars = urls.claim_tars(tmp_path)
    left = {"00000.tar", "00000.parquet", "00000_stats.json"}
    assert {path.name for path in tars.iterdir()} == left


def test_a_tar_that_lost_images_is_made_again(tmp_path: Path) -> None:
    leave_tar(tmp_path / "tars-old", "00000", count=3)
    assert not list(urls.claim_tars(tmp_path).iterdir())


def test_what_lives_on_writes_nowhere(tmp_path: Path) -> None:
    leave_tar(tmp_path / "tars-old", "00000")
    with (tmp_path / "tars-old/00001.tar").open("wb") as held:
        tars = urls.claim_tars(tmp_path)
        held.write(b"late")
    with pytest.raises(FileNotFoundError):
        (tmp_path / "tars-old/00001_stats.json").write_text("{}")
    assert urls.complete_tars(tars) == {"00000"}
    assert len(list(tars.iterdir())) == 3


def test_the_limit_of_pixels_is_that_of_the_pipeline() -> None:
    assert urls.MAX_PIXELS == MAX_PIXELS  # type: ignore[attr-defined]  # it does not re-export


@pytest.mark.parametrize("program", ["pyspark", "ray"])
def test_a_distributor_that_is_not_installed_is_one_line(workplace: Path, program: str) -> None:
    stand_in(workplace)
    (workplace / urls.ENVIRONMENT / "bin" / program).unlink()
    urls.require_installed("multiprocessing")
    with pytest.raises(UserError, match=f"has no {program}: run `make clusters`"):
        urls.require_installed(program)


@pytest.mark.parametrize("variable", ["PATH", "JAVA_HOME"])
def test_spark_without_java_is_one_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    stand_in(workplace)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv(variable, str(workplace))
    urls.require_installed("ray")
    with pytest.raises(UserError, match=r"Spark needs Java 17 or later: install it"):
        urls.require_installed("pyspark")


@pytest.mark.usefixtures("workplace")
def test_without_the_environment_is_one_line(tmp_path: Path) -> None:
    params = urls.Params(**write_lists(tmp_path, [], []))
    with pytest.raises(UserError, match=r"has no img2dataset: run `make img2dataset`"):
        urls.fetch(params, tmp_path / "raw")


def stand_in(folder: Path, script: str = "exit 0") -> None:
    """A program in the place of the Python that runs img2dataset, with all of its distributors."""
    programs = folder / urls.ENVIRONMENT / "bin"
    programs.mkdir(parents=True)
    for name in ("python", *urls.TARGETS):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)


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
    with pytest.raises(UserError, match=r"made 0 of 1 tars .*exit code 0.* and run again"):
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


@pytest.fixture
def fetched(workplace: Path) -> tuple[Path, urls.Params]:
    """What one address that was there and one that was gone leave in `raw/train`."""
    leave_tar(workplace / "raw/train", "00000")
    rows = [
        ("1", "b", "failed_to_download", "HTTP Error 404: Not Found"),
        ("0", "a", "success", None),
    ]
    table = pd.DataFrame(rows, columns=["key", "caption", "status", "error_message"])
    table.to_parquet(workplace / "raw/train/00000.parquet")
    return workplace / "raw", parse(urls.Params, write_lists(workplace, [], []), "data.fetch")


def test_failures_are_samples_without_image(fetched: tuple[Path, urls.Params]) -> None:
    came, failed = urls.read(*fetched)
    assert (came.key, came.split, len(came.image)) == ("train-0", "train", 20_000)
    assert (failed.key, failed.split, failed.problem) == ("train-1", "train", "HTTP 404")
    assert failed.captions == ("b",)


def test_a_tar_without_what_was_downloaded_is_one_line(fetched: tuple[Path, urls.Params]) -> None:
    (fetched[0] / "train/00000.tar").write_bytes(bytes(10_240))  # empty, with its end
    with pytest.raises(UserError, match=r"00000\.tar has 0 images of 1 .*: make it again"):
        list(urls.read(*fetched))


@pytest.mark.parametrize("damage", [Path.unlink, cut, empty])
def test_a_lost_list_of_failures_is_one_line(
    fetched: tuple[Path, urls.Params], damage: Callable[[Path], None]
) -> None:
    damage(fetched[0] / "train/00000.parquet")
    with pytest.raises(UserError, match=r"00000\.parquet is missing or damaged"):
        list(urls.read(*fetched))
