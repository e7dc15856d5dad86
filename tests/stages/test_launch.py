"""How a stage is started: whose code it runs, in which processes, and what is left when it ends."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH, SUPERVISE = ROOT / "stages/launch.py", ROOT / "src/adapterbench/runs/launch.py"
PATIENCE = 300
"""Seconds for what takes one on an idle machine."""

SCRIPT = """
import sys, adapterbench, helper
print(adapterbench.WHOSE, helper.WHOSE, *sys.argv)
if __name__ == "__main__":
    sys.exit(int(sys.argv[-1]))
"""

LAUNCHER = """
import subprocess, sys
print("launched", *sys.argv[1:-3], flush=True)
sys.exit(subprocess.run([sys.executable, *sys.argv[-3:]]).returncode)
"""

STUBBORN = """
import os, signal, subprocess, sys, time
worker = "import os, time; open('worker', 'w').write(str(os.getpid())); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
open("launcher", "w").write(str(os.getpid()))
time.sleep(600)
"""
"""A launcher that ends when told, and leaves behind a worker with a session of its own."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project in a folder whose name has a space; the tests run in it."""
    root = tmp_path / "a copy"
    for folder, text in {"src/adapterbench": "WHOSE = 'copy'", "stages": ""}.items():
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").write_text(text)
    shutil.copy(LAUNCH, root / "stages")
    (root / "src/adapterbench/runs").mkdir()
    shutil.copy(SUPERVISE, root / "src/adapterbench/runs")  # it needs no other module
    (root / "stages/helper.py").write_text("WHOSE = 'beside'")
    for name in ("train", "prepare"):
        (root / f"stages/{name}.py").write_text(SCRIPT)
    elsewhere = tmp_path / "installed/adapterbench"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("WHOSE = 'installed'")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere.parent))
    monkeypatch.delenv("ADAPTERBENCH_LAUNCH", raising=False)
    monkeypatch.chdir(root)
    return root


def command(stage: str, *arguments: str) -> list[str]:
    return [sys.executable, "stages/launch.py", f"stages/{stage}.py", *arguments]


def run(stage: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(stage, *arguments), capture_output=True, text=True, check=False)


def launcher(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str, *options: str) -> None:
    """Have the environment name a launcher with this code."""
    path = folder / "the launcher.py"
    path.write_text(text)
    words = [sys.executable, str(path), *options]
    monkeypatch.setenv("ADAPTERBENCH_LAUNCH", shlex.join(words))


@pytest.mark.usefixtures("project")
def test_a_stage_runs_the_code_beside_it_and_its_exit_code_is_the_stages() -> None:
    done = run("train", "a b", "7")
    assert done.stdout == "copy beside stages/train.py a b 7\n"
    assert done.returncode == 7


def test_stages_that_share_work_run_through_the_launcher(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher(monkeypatch, project, LAUNCHER, "--of", "$HOME; ls")
    done = run("train", "a b", "7")
    assert done.stdout == "launched --of $HOME; ls\ncopy beside stages/train.py a b 7\n"
    assert done.returncode == 7
    assert run("prepare", "x", "0").stdout == "copy beside stages/prepare.py x 0\n"


def test_an_interruption_as_a_stage_starts_is_one_line(project: Path) -> None:
    code = [
        "import os, signal, time",
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored",
        "os.kill(os.getpid(), signal.SIGINT)",
        "time.sleep(600)",
    ]
    (project / "stages/train.py").write_text("\n".join(code))
    done = run("train")
    assert done.returncode == 130
    assert done.stderr == "error: interrupted as it started: run the same command again\n"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no-such-launcher -n 2", "'no-such-launcher', which does not start (No such file"),
        ("./stages -n 2", "'./stages', which does not start (Permission denied)"),
        ("torchrun 'unclosed", "cannot be split into words (No closing quotation)"),
    ],
)
def test_a_launcher_that_does_not_start_is_one_line(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERBENCH_LAUNCH", value)
    done = run("train", "a", "0")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ADAPTERBENCH_LAUNCH ")
    assert message in line


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found in Linux's /proc")
@pytest.mark.parametrize(
    ("target", "number", "code"),
    [
        ("stage", signal.SIGTERM, 4),
        ("stage", signal.SIGINT, 3),
        ("stage", signal.SIGKILL, -signal.SIGKILL),
        ("launcher", signal.SIGKILL, 128 + signal.SIGKILL),
    ],
)
def test_nothing_is_left_behind(
    target: str, number: int, code: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher(monkeypatch, project, STUBBORN)
    stage = subprocess.Popen(command("train"), process_group=0)
    files = [project / "launcher", project / "worker"]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    pids = [int(file.read_text()) for file in files]
    os.kill(stage.pid if target == "stage" else pids[0], number)
    assert stage.wait(PATIENCE) == code
    if number == signal.SIGKILL and target == "stage":  # then the launcher is told, no more
        wait_for(lambda: not alive(pids[0]))
        os.kill(pids[1], signal.SIGKILL)
    else:
        assert [pid for pid in pids if alive(pid)] == []
