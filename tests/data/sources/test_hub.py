"""Shards of a hub: a real server in the hub's layout on this machine, asked by its real client."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import webdataset as wds
import yaml
from huggingface_hub import constants
from PIL import Image
from toy_hub import point_at
from toy_server import QuietHandler

from adapterbench.core.config import DataParams, parse
from adapterbench.core.errors import UserError
from adapterbench.data.prepare import prepare
from adapterbench.data.sources import hub
from adapterbench.formats.shards import read_split

ROOT = Path(__file__).parents[3]
COMMIT = "46f3d69f840e59d77d52e8decfe5baec97e94c7f"
FETCH = {
    "repository": "someone/set",
    "revision": COMMIT,
    "train": "set-train-{0000..0002}.tar",
    "validation": "set-validation-0000.tar",
}


def shard(number: int) -> bytes:
    """Two samples as CC3M's shards have them."""
    tar = BytesIO()
    with wds.TarWriter(tar, mtime=0) as writer:
        for key in range(2):
            image = Image.effect_noise((40, 30), 50 + 7 * (2 * number + key)).convert("RGB")
            jpeg = BytesIO()
            image.save(jpeg, "JPEG")
            facts = {"key": f"{key:09d}", "url": f"http://x/{number}", "status": "success"}
            writer.write(
                {
                    "__key__": f"{key:09d}",
                    "jpg": jpeg.getvalue(),
                    "txt": f"image {key} of {number}",
                    "json": json.dumps(facts),
                }
            )
    return tar.getvalue()


class Hub(ThreadingHTTPServer):
    """Serves shards, their sizes and digests.

    `spoilt` ones come with a wrong byte, `stalled` ones not at all.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        names = [f"set-train-{n:04d}.tar" for n in range(3)] + ["set-validation-0000.tar"]
        self.shards = {name: shard(number) for number, name in enumerate(names)}
        self.spoilt: set[str] = set()
        self.stalled: set[str] = set()
        self.brought: Counter[str] = Counter()


class Handler(QuietHandler, BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
        if self.path != f"/api/datasets/someone/set/paths-info/{COMMIT}":
            self.answer(404, b"", **{"X-Error-Code": "RevisionNotFound"})
            return
        shards = {name: self.server.shards[name] for name in asked if name in self.server.shards}
        self.answer(200, json.dumps([facts(*item) for item in shards.items()]).encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        folder, _, name = self.path.rpartition("/")
        assert folder == f"/datasets/someone/set/resolve/{COMMIT}"
        data = self.server.shards[name]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if self.command == "GET":
            self.server.brought[name] += 1
            if name in self.server.stalled:
                while name in self.server.stalled:
                    time.sleep(0.01)
                return
            if name in self.server.spoilt:
                data = data[:600] + b"!" + data[601:]
        self.answer(200, data, **{"X-Repo-Commit": COMMIT, "ETag": etag})


def facts(name: str, data: bytes) -> dict[str, Any]:
    """A file's row in the hub's answer."""
    digest = hashlib.sha256(data).hexdigest()
    lfs = {"oid": digest, "size": len(data), "pointerSize": 130}
    return {"type": "file", "oid": "0" * 40, "size": len(data), "path": name, "lfs": lfs}


@pytest.fixture
def server(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        point_at(running.server_port, workplace, monkeypatch)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def data_params() -> DataParams:
    return DataParams(
        source="hub",
        fetch=FETCH,
        resolution=16,
        split="source",
        held_out=None,
        validation_concepts=None,
        images_per_concept=None,
        samples_per_shard=4,
        seed=0,
    )


def fetch(**changes: str) -> None:
    hub.fetch(hub.Params(**FETCH | changes), Path("raw"))


def refusal(**changes: str) -> str:
    with pytest.raises(UserError) as caught:
        fetch(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stage(workplace: Path) -> "subprocess.CompletedProcess[str]":
    """Run the stage in a process of its own."""
    params = yaml.safe_dump({"data": data_params().model_dump()})
    (workplace / "params.yaml").write_text(params)
    env = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{workplace / 'mlflow.db'}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    command = [sys.executable, str(ROOT / "stages/fetch.py"), "--out", "raw"]
    return subprocess.run(command, cwd=workplace, env=env, capture_output=True, text=True)


def test_the_stage_brings_shards_whole(server: Hub, workplace: Path) -> None:
    done = stage(workplace)
    assert done.returncode == 0, done.stderr
    came = {path.name: path.read_bytes() for path in (workplace / "raw").glob("*/*.tar")}
    assert came == server.shards
    assert not list((workplace / ".resume").iterdir())


def test_a_killed_download_goes_on(server: Hub, workplace: Path) -> None:
    late = "set-train-0001.tar"
    server.stalled.add(late)
    download = get_context("fork").Process(target=fetch)
    download.start()
    while len(list(workplace.glob(".resume/*/whole/*.tar"))) < len(server.shards) - 1:
        assert download.is_alive()
        time.sleep(0.01)
    download.kill()
    download.join()
    assert not (workplace / "raw").exists()
    server.stalled.clear()
    fetch()
    assert {path.name: path.read_bytes() for path in Path("raw").glob("*/*.tar")} == server.shards
    assert server.brought == {name: 1 + (name == late) for name in server.shards}


def test_shards_of_the_hub_become_shards(server: Hub, workplace: Path) -> None:
    fetch()
    manifest = prepare(data_params(), workplace / "raw", workplace / "shards")
    assert server.brought.keys() == server.shards.keys()
    assert manifest["dropped"] == {}
    assert [row["samples"] for row in manifest["splits"]["train"]["shards"]] == [4, 2]
    [first, _] = read_split(workplace / "shards", "validation")
    assert first.key == "set-validation-0000-000000000"
    assert first.captions == ("image 0 of 3",)
    assert first.meta["url"] == "http://x/3"


def test_a_damaged_shard_is_refused_and_brought_again_alone(server: Hub, workplace: Path) -> None:
    server.spoilt.add("set-train-0001.tar")
    assert "set-train-0001.tar arrived damaged" in refusal()
    assert not (workplace / "raw").exists()
    before = server.brought.copy()
    server.spoilt.clear()
    fetch()
    again = server.brought - before
    assert again["set-train-0001.tar"] == 1
    assert again["set-train-0000.tar"] == 0


def test_what_the_hub_has_not_is_one_line(server: Hub) -> None:
    assert "has no shard set-train-0003.tar" in refusal(train="set-train-{0000..0005}.tar")
    assert "check data.fetch.repository and data.fetch.revision" in refusal(revision="1" * 40)
    assert "check data.fetch.repository" in refusal(repository="no/such/name")
    assert not server.brought


def test_unbalanced_braces_are_one_line() -> None:
    fields = {"repository": "a/b", "revision": "c", "train": "{0..9.tar", "validation": "1.tar"}
    with pytest.raises(UserError, match=r"data\.fetch\.train: .*Unbalanced braces"):
        parse(hub.Params, fields, "data.fetch")


def test_no_hub_is_one_line(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(9, workplace, monkeypatch)
    assert "cannot reach the hub: check the network and run again to resume" in refusal()


@pytest.mark.usefixtures("workplace")
def test_offline_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot reach the hub" in refusal()
