"""The study's page in docs/ is what the shared runs give, and no run is made anew for it."""

from pathlib import Path

import pytest

from .project import ROOT, Project, environment

pytestmark = pytest.mark.slow


def test_a_clone_pulls_the_runs_and_rebuilds_the_page(tmp_path: Path) -> None:
    here = Project(ROOT, environment(tmp_path / "home"))
    other = here.clone(tmp_path / "clone")
    other.dvc("--cd", "study", "pull", "--quiet", "--allow-missing")
    assert not other.ran("--cd", "study", "repro", "--allow-missing")
    report = "repro", "--single-item", "--force", "report"
    assert other.ran("--cd", "study", *report) == {"report"}
    made, shown = other.root / "study/report", other.root / "docs"
    assert (made / "study.md").read_bytes() == (shown / "study.md").read_bytes()
    figures = sorted(path.name for path in (made / "study").iterdir())
    assert figures == sorted(path.name for path in (shown / "study").iterdir())
