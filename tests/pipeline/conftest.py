"""One toy project, run from nothing once a session; every test works on a copy of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def fresh(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that nobody has run yet; nobody writes there."""
    folder = tmp_path_factory.mktemp("pipeline")
    return create(folder / "fresh", folder / "sources", env)


@pytest.fixture(scope="session")
def finished(fresh: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after `dvc repro`, committed; nobody writes there."""
    project = fresh.copy(tmp_path_factory.mktemp("pipeline") / "finished")
    assert project.ran("repro") == all_stages()
    project.commit("Results")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project."""
    return finished.copy(tmp_path / "project")
