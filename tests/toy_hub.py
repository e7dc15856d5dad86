"""A server on this machine that speaks what the hub's client asks: repositories of models."""

import hashlib
import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from toy_server import QuietHandler

TOKEN = "hf_ofatest"
OWNER = "someone"
"""Who `TOKEN` belongs to."""
BAD_LICENCE = "nonsense"


def point_at(port: int, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub's client of this process ask a port of this machine."""
    endpoint = f"http://127.0.0.1:{port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workplace / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HOME", str(workplace / "hf"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


class Hub(ThreadingHTTPServer):
    """Repositories as `{name: {branch: {path: bytes}}}`; a commit is named by what it holds.

    Files that end with one of `large` travel by git LFS, as weights do on the real hub.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.large: tuple[str, ...] = ()
        self.stored: dict[str, bytes] = {}
        """Files that came by git LFS, by digest."""
        self.brought: list[str] = []
        """Files that were downloaded."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commits(self, name: str) -> dict[str, dict[str, bytes]]:
        """The files of a repository, by branch and by commit."""
        branches = self.repositories[name]
        return branches | {commit(files): files for files in branches.values()}


def commit(files: dict[str, bytes]) -> str:
    """Name of a commit."""
    lines = [f"{path} {hashlib.sha1(data).hexdigest()}" for path, data in sorted(files.items())]
    return hashlib.sha1("\n".join(lines).encode()).hexdigest()


class Handler(QuietHandler, BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "models", owner, name, "revision", revision]:
                if files := self.files(f"{owner}/{name}", revision):
                    self.say({"id": f"{owner}/{name}", "sha": commit(files), "siblings": []})
            case ["api", "models", owner, name, "tree", revision]:
                if files := self.files(f"{owner}/{name}", revision):
                    rows = [
                        {"type": "file", "oid": "0" * 40, "size": len(data), "path": path}
                        for path, data in files.items()
                    ]
                    self.say(rows)
            case [owner, name, "resolve", revision, path]:
                if files := self.files(f"{owner}/{name}", revision):
                    etag = f'"{hashlib.sha256(files[path]).hexdigest()}"'
                    if self.command == "GET":
                        self.server.brought.append(path)
                    self.answer(200, files[path], ETag=etag, **{"X-Repo-Commit": commit(files)})
            case _:
                self.answer(404, b"")

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """Those of a revision; None after the answer that there is none."""
        if name not in self.server.repositories or (
            name in self.server.private and not self.authorized()
        ):
            self.answer(401, b"", **{"X-Error-Code": "RepoNotFound"})
            return None
        found = self.server.commits(name).get(unquote(revision))
        if not found:
            self.answer(404, b"", **{"X-Error-Code": "RevisionNotFound"})
        return found

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path.strip("/").split("/")
        if path == ["api", "validate-yaml"]:
            problem = [{"message": '"license" must be one of ...'}]
            bad = f"license: {BAD_LICENCE}" in json.loads(body)["content"]
            self.say({"errors": problem if bad else [], "warnings": []}, 400 if bad else 200)
        elif not self.authorized():
            self.answer(401, b"")
        else:
            self.change(path, body)

    def change(self, path: list[str], body: bytes) -> None:
        """What only the owner may do."""
        repositories = self.server.repositories
        match path:
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                if asked["organization"] != OWNER:
                    self.answer(403, b"")
                    return
                if asked.get("visibility") == "private" and name not in repositories:
                    self.server.private.add(name)
                status = 409 if name in repositories else 200
                repositories.setdefault(name, {"main": {}})
                self.say({"url": f"{self.server.address}/{name}"}, status)
            case ["api", "models", owner, name, "branch", branch]:
                branches = repositories[f"{owner}/{name}"]
                status = 409 if branch in branches else 200
                branches.setdefault(branch, dict(branches["main"]))
                self.say({}, status)
            case ["api", "models", _, _, "preupload", _]:
                asked = [file["path"] for file in json.loads(body)["files"]]
                self.say({"files": [self.mode(path) for path in asked]})
            case [_, _, "info", "lfs", "objects", "batch"]:
                rows = [
                    {**o, "actions": {"upload": {"href": f"{self.server.address}/lfs/{o['oid']}"}}}
                    for o in json.loads(body)["objects"]
                ]
                self.say({"objects": rows, "transfer": "basic"})
            case ["api", "models", owner, name, "commit", branch]:
                files = repositories[f"{owner}/{name}"][branch]
                for row in map(json.loads, body.splitlines()):
                    if row["key"] == "file":
                        files[row["value"]["path"]] = b64decode(row["value"]["content"])
                    elif row["key"] == "lfsFile":
                        files[row["value"]["path"]] = self.server.stored[row["value"]["oid"]]
                address = f"{self.server.address}/{owner}/{name}/commit/{commit(files)}"
                self.say({"commitUrl": address, "commitOid": commit(files)})
            case _:
                self.answer(404, b"")

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.stored[hashlib.sha256(data).hexdigest()] = data
        self.answer(200, b"")

    def mode(self, path: str) -> dict[str, Any]:
        """How a file is to be uploaded."""
        large = bool(self.server.large) and path.endswith(self.server.large)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def say(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode())


@contextmanager
def serving(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client of this process asks, without a token."""
    with Hub() as running:
        point_at(running.server_port, workplace, monkeypatch)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(workplace / "hf/token"))
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
