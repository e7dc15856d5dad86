"""One toy project, run from nothing once a session; every test works on a copy of it."""

from pathlib import Path

import pytest

from .project import Project, all_stages, create


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that nobody has run yet; nobody writes there."""
    folder = tmp_path_factory.mktemp("pipeline")
    return create(folder / "fresh", folder / "home")


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
