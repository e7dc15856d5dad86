"""Wall time and peak memory of `dvc repro` in a fresh clone, and of the no-op after it."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def main(
    target: Annotated[str, typer.Option(help="Stage to stop at; all by default.")] = "",
) -> None:
    """Time the pipeline in a clone of the last commit (about twenty minutes on two cores)."""
    # MLflow's process may write its last lines while the folder is removed
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
        table = Table(title=f"dvc repro on {os.cpu_count()} cores")
        for column in ("run", "seconds", "peak memory of a process (MiB)"):
            table.add_column(column)
        for run in ("from nothing", "nothing to do"):
            seconds = timed(["dvc", "repro", *target.split()], Path(folder))
            table.add_row(run, f"{seconds:.1f}", f"{children_peak_mib():.0f}")
        timed([sys.executable, "-m", "adapterbench.runs.flush"], Path(folder))
    Console().print(table)


def timed(command: list[str], folder: Path) -> float:
    """Run a command of this environment in `folder`; seconds."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PATH": path})
    return time.perf_counter() - began


def children_peak_mib() -> float:
    """Largest resident set of any process started so far, MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)
