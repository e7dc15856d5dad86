"""Data, models and results between people: a remote of their own, and the model that is shipped."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from . import sftp
from .project import ROOT, Project

RESULTS = ("results/comparison.csv", "results/paired.csv", "results/report.html")


def files(folder: Path) -> set[Path]:
    """Every file below a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[Path, bytes]:
    """What is in every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in files(folder)}


def shared(project: Project, clone: Project, connect: Callable[[Project], None]) -> None:
    """Push from one clone, pull and reproduce in another; the results are there, nothing ran."""
    connect(project)
    project.commit("Remote")
    project.dvc("push")
    other = project.clone(clone.root)
    connect(other)
    other.dvc("pull")
    assert other.ran("repro") == set()
    assert other.run("git", "status", "--porcelain").stdout == ""
    for name in RESULTS:
        assert (other.root / name).read_bytes() == (project.root / name).read_bytes()


def test_a_folder_shares_everything(project: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"

    def connect(one: Project) -> None:
        one.dvc("remote", "add", "--default", "--force", "ours", str(remote))

    shared(project, Project(tmp_path / "other", project.env), connect)
    assert files(remote)
    assert not files(project.root / "published")


@pytest.mark.slow
def test_sftp_shares_everything(project: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    with sftp.serve(tmp_path) as server:

        def connect(one: Project) -> None:
            url = f"ssh://user@127.0.0.1:{server.port}{remote}"
            one.dvc("remote", "add", "--default", "--force", "ours", url)
            one.dvc("remote", "modify", "--local", "ours", "keyfile", str(server.keyfile))

        shared(project, Project(tmp_path / "other", project.env), connect)
    assert files(remote)


@pytest.mark.slow
def test_an_adapter_is_got_by_name_and_version(project: Project, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--default", "ours", str(tmp_path / "remote"))
    model = project.root / "models/ip_adapter"
    versions = {"v1.0.0": contents(model)}
    project.commit("Remote")
    project.run("gto", "register", "ip-adapter", "--version", "v1.0.0")
    project.dvc("push", "train@ip_adapter")
    (model / "note.txt").write_text("trained further")
    project.dvc("commit", "--force", "train@ip_adapter")
    versions["v1.1.0"] = contents(model)
    project.commit("Next")
    project.run("gto", "register", "ip-adapter", "--version", "v1.1.0")
    project.run("gto", "assign", "ip-adapter", "--version", "v1.0.0", "--stage", "prod")
    project.dvc("push", "train@ip_adapter")

    other = project.clone(tmp_path / "other")  # its cache is empty
    for number, (options, version) in enumerate(
        {
            ("--rev", "v1.0.0"): "v1.0.0",
            ("--rev", "v1.1.0"): "v1.1.0",
            ("--stage", "prod"): "v1.0.0",
            (): "v1.1.0",
        }.items()
    ):
        out = tmp_path / f"got{number}"
        other.dvc("artifacts", "get", ".", "ip-adapter", *options, "--out", str(out))
        assert contents(out) == versions[version]


@pytest.fixture
def publisher(fresh: Project, tmp_path: Path) -> Project:
    """A fresh project that ships its backbone, as `make publish` does."""
    project = fresh.copy(tmp_path / "publisher")
    shutil.copytree(project.params()["backbone"]["path"], project.root / "pins/emoji")
    shutil.copy(ROOT / "pins/emoji.dvc", project.root / "pins")
    project.dvc("commit", "--quiet", "--force", "pins/emoji.dvc")
    project.dvc("push", "--remote", "published", "pins/emoji.dvc")
    out = yaml.safe_load((project.root / "pins/emoji.dvc").read_text())["outs"][0]
    assert out["desc"]
    pin = out["md5"]
    project.params(backbone={"source": "published", "path": "pins/emoji", "revision": pin})
    project.commit("Publish")
    return project


def test_a_fresh_clone_has_the_shipped_model_and_pushes_nothing_there(
    publisher: Project, tmp_path: Path
) -> None:
    clone = publisher.clone(tmp_path / "clone")
    assert clone.ran("repro", "backbone") == {"backbone"}
    model = clone.root / "data/backbone"
    original = publisher.root / "pins/emoji"
    assert contents(model) == contents(original)

    before = files(clone.root / "published")
    clone.dvc("pull", "pins/emoji.dvc")  # comes from its own remote, whatever the default
    assert contents(clone.root / "pins/emoji") == contents(original)
    (clone.root / "data/backbone/note.txt").write_text("mine")
    clone.dvc("commit", "--force", "backbone")
    clone.dvc("push", fails=True)  # no default remote
    clone.dvc("remote", "add", "--default", "ours", str(tmp_path / "ours"))
    clone.dvc("push")
    assert files(clone.root / "published") == before


def test_what_is_published_is_checked_out_once_it_was_brought(project: Project) -> None:
    """`make repro` pulls the pins: else `dvc checkout` fails in a fresh clone."""
    model, pin = project.root / "pins/emoji", project.root / "pins/emoji.dvc"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"w")
    shutil.copy(ROOT / "pins/emoji.dvc", pin)
    project.dvc("commit", "--quiet", "--force", "pins/emoji.dvc")
    project.dvc("push", "--remote", "published", "pins/emoji.dvc")
    md5 = yaml.safe_load(pin.read_text())["outs"][0]["md5"]
    for digest in (md5, hashlib.md5(b"w").hexdigest()):
        (project.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).unlink()
    shutil.rmtree(model)
    project.dvc("checkout", fails=True)
    project.dvc("pull", "--quiet", "pins/emoji.dvc")
    project.dvc("checkout")
    assert (model / "weights").read_bytes() == b"w"
