"""One toy project, run from nothing once a session; every test works on a copy of it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from . import forkserver
from .project import Project, all_stages, create, environment


@pytest.fixture(scope="session")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of every command, quick to start where that can be done."""
    plain = environment(tmp_path_factory.mktemp("home"))
    if sys.platform != "linux":
        yield plain
        return
    with forkserver.running(plain) as folder:
        yield {**plain, "PATH": f"{folder}:{plain['PATH']}"}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def fresh(env: dict[str, str], shared: Path) -> Project:
    """A project that nobody has run yet; nobody writes there."""
    root, done = shared / "fresh", shared / "fresh.done"
    with FileLock(shared / "fresh.lock"):
        if not done.exists():
            create(root, shared / "sources", env)
            done.touch()
    return Project(root, env)


@pytest.fixture(scope="session")
def finished(fresh: Project, shared: Path) -> Project:
    """The project after `dvc repro`, committed; nobody writes there."""
    root, done = shared / "finished", shared / "finished.done"
    with FileLock(shared / "finished.lock"):
        if not done.exists():
            project = fresh.copy(root)
            assert project.ran("repro") == all_stages()
            project.commit("Results")
            done.touch()
    return Project(root, fresh.env)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project."""
    return finished.copy(tmp_path / "project")
