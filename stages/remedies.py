"""How a stage's program is run: an input that cannot be used is told with the stage that makes it.

The package does not know that DVC runs it; here is what does.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from adapterbench.runs import program


def run(main: Callable[..., None]) -> None:
    """Run the `main` of a stage."""
    program.run(main, remedy=remedy)


def remedy(path: Path) -> str:
    """What makes a file again: a DVC command where it is an output of the pipeline."""
    stage = maker(path.absolute())
    if stage is None:
        return "make it again"
    if not path.exists():
        return f"run `dvc repro {stage}`"
    return f"delete it and run `dvc repro {stage}` (with -f where that brings the same again)"


def maker(path: Path) -> str | None:
    """The stage of the pipeline whose output holds an absolute path; None: there is none."""
    from dvc.exceptions import DvcException  # seconds to import
    from dvc.repo import Repo

    with suppress(DvcException), Repo() as repo:
        for stage in repo.index.stages:
            if any(path.is_relative_to(out.fs_path) for out in stage.outs):
                return str(stage.addressing)
    return None
