"""Runs a stage's program; errors about generated files name the DVC stage that makes them.

The package itself does not depend on DVC as its orchestrator.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from adapterbench.runs import program


def run(main: Callable[..., None]) -> None:
    """Run the `main` of a stage."""
    program.run(main, remedy=remedy)


def remedy(path: Path) -> str:
    """How to generate a file again: a DVC command for an output of the pipeline."""
    stage = maker(path.absolute())
    if stage is None:
        return "make it again"
    if not path.exists():
        return f"run `dvc repro {stage}`"
    return f"delete it and run `dvc repro {stage}` (with -f where that brings the same again)"


def maker(path: Path) -> str | None:
    """The stage whose output contains an absolute path, or None."""
    from dvc.exceptions import DvcException  # seconds to import
    from dvc.repo import Repo

    with suppress(DvcException), Repo() as repo:
        for stage in repo.index.stages:
            if any(path.is_relative_to(out.fs_path) for out in stage.outs):
                return str(stage.addressing)
    return None
