"""Facts about the code and the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from adapterbench.core.environment import installed, revision


def run_git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.mark.usefixtures("workplace")
class TestRevision:
    def test_outside_a_repository(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
        assert revision() == {"revision": None, "dirty": None}

    def test_without_git(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert revision() == {"revision": None, "dirty": None}

    def test_code_and_settings_make_it_dirty_and_results_do_not(self) -> None:
        run_git("init")
        assert revision()["revision"] is None  # no commit yet
        for name in ("params.yaml", "dvc.lock"):
            Path(name).write_text("a: 1\n")
        run_git("add", ".")
        run_git("commit", "-m", "first")
        head = run_git("rev-parse", "HEAD")
        assert revision() == {"revision": head, "dirty": False}
        Path("dvc.lock").write_text("a: 2\n")
        assert revision()["dirty"] is False
        Path("params.yaml").write_text("a: 2\n")
        assert revision() == {"revision": head, "dirty": True}


def test_versions_without_an_import() -> None:
    assert installed("pytest") == pytest.__version__
    assert installed("no-such-package") is None


def test_peak_memory_is_in_mebibytes() -> None:
    """In a small process: the tests' own peak is gigabytes, which cost seconds to exceed."""
    code = (
        "from adapterbench.core.environment import peak_memory_mb as peak; before = peak();"
        "held = b'x' * (int(before) + 200) * 2**20; print(before, peak(), len(held))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    before, after, held = map(float, shown.stdout.split())
    assert 200 <= after - before < 300
    assert held > before * 2**20
