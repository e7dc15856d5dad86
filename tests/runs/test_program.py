"""What a person sees when a stage script ends: run as real programs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapterbench.core.errors import InputError
from adapterbench.runs.program import guarded

SCRIPT = """
import errno
import time
from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.runs.program import run


def user_error():
    raise UserError("data/shards is missing:\\n prepare it")


def bug():
    raise KeyError("a bug")


def disk_full():
    with open("/dev/full", "w") as file:
        file.write("x")


def quota():
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


def safetensors_full():
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def other_os_error():
    raise PermissionError(errno.EACCES, "no")


def wait():
    with publish(Path("out.txt")) as beside:
        beside.write_text("half")
        print("ready", flush=True)
        time.sleep(600)


def done():
    import logging

    logging.getLogger("adapterbench.runs.program").info("worked")


def main(case: Annotated[str, Option(help="What to do.")], count: int = 1) -> None:
    \"\"\"Do one thing.\"\"\"
    globals()[case]()


if __name__ == "__main__":
    run(main)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "stage_script.py"
    path.write_text(SCRIPT)
    return path


def ended(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        cwd=script.parent,
        timeout=600,
        check=False,
    )


def test_success_is_code_0_and_logs_to_standard_error(script: Path) -> None:
    done = ended(script, "--case", "done")
    assert (done.returncode, done.stdout) == (0, "")
    assert "worked" in done.stderr


def test_help_is_the_docstring(script: Path) -> None:
    done = ended(script, "--help")
    assert done.returncode == 0
    assert "Do one thing." in done.stdout
    assert "--case" in done.stdout


def test_a_user_error_is_one_line(script: Path) -> None:
    done = ended(script, "--case", "user_error")
    assert done.returncode == 1
    assert done.stderr == "error: data/shards is missing: prepare it\n"


def test_a_program_names_what_makes_an_input_again(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise InputError("data/shards is missing", Path("data/shards"))

    for remedy, told in (
        (None, "make it again"),
        (lambda path: f"make {path}", "make data/shards"),
    ):
        with pytest.raises(SystemExit) as left:
            guarded(main, remedy)()
        assert left.value.code == 1
        assert capsys.readouterr().err == f"error: data/shards is missing: {told}\n"


@pytest.mark.parametrize("case", ["disk_full", "quota", "safetensors_full"])
def test_a_full_disk_is_one_line(script: Path, case: str) -> None:
    done = ended(script, "--case", case)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on the disk")
    assert done.stderr.count("\n") == 1


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 TiB"),
        OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        guarded(main)()
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not enough memory")


class DistBackendError(RuntimeError):
    """As torch has it for NCCL."""


@pytest.mark.parametrize(
    "error",
    [
        DistBackendError("NCCL communicator was aborted on rank 0."),
        RuntimeError("[../gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer"),
    ],
)
def test_a_lost_process_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        guarded(main)()
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: another process of this launch has ended")


@pytest.mark.parametrize("case", ["bug", "other_os_error"])
def test_a_bug_keeps_its_traceback(script: Path, case: str) -> None:
    done = ended(script, "--case", case)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert case in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--no-such"], [], ["--case", "done", "--count", "many"], ["--case"]]
)
def test_bad_arguments_are_code_2_without_a_traceback(script: Path, arguments: list[str]) -> None:
    done = ended(script, *arguments)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_leaves_nothing(script: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, str(script), "--case", "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=script.parent,
        # a background job inherits an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert stderr.startswith("error: interrupted")
    assert stderr.count("\n") == 1
    assert [path.name for path in script.parent.iterdir()] == [script.name]
