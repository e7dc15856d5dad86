"""A place of its own for every set of parameters and inputs."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterbench.core.config import EncodeParams
from adapterbench.core.errors import UserError
from adapterbench.runs.resume import RESUME, exclusive_run, resume_path

PARAMS = EncodeParams(
    image_encoder="e", pretrained=None, batch_size=1, fit="crop", patches=False, texts="stored"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    return path


def test_the_same_request_has_the_same_place(file: Path) -> None:
    first = resume_path("encode", {"encode": PARAMS, "b": 1}, file)
    assert first == resume_path("encode", {"b": 1, "encode": PARAMS.model_copy()}, file)
    assert first.parent == RESUME
    assert first.name.startswith("encode-")


def test_every_difference_has_another_place(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{ }")
    places = {
        resume_path("encode", {"encode": PARAMS}, file),
        resume_path("train", {"encode": PARAMS}, file),
        resume_path("encode", {"encode": PARAMS.model_copy(update={"batch_size": 2})}, file),
        resume_path("encode", {"encode": PARAMS, "more": None}, file),
        resume_path("encode", {"encode": PARAMS}, other),
        resume_path("encode", {"encode": PARAMS}, file, other),
        resume_path("encode", {"encode": PARAMS}, other, file),
        resume_path("encode", {"encode": PARAMS}),
    }
    assert len(places) == 8


def test_the_content_of_an_input_counts_not_its_name(file: Path, tmp_path: Path) -> None:
    before = resume_path("encode", {}, file)
    moved = file.rename(tmp_path / "moved.json")
    assert resume_path("encode", {}, moved) == before
    moved.write_text("{}\n")
    assert resume_path("encode", {}, moved) != before


def test_a_missing_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json is missing: make it again"):
        resume_path("encode", {}, tmp_path / "absent.json")


HOLDER = """
import sys
from pathlib import Path
from adapterbench.runs.resume import exclusive_run

with exclusive_run(Path("train-a"), Path("train-b")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(workplace: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds two places."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=workplace,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("place", ["train-a", "train-b"])
def test_two_runs_do_not_share_a_place(holder: subprocess.Popen[str], place: str) -> None:
    with (
        pytest.raises(UserError, match="the same run is already in progress"),
        exclusive_run(Path(place)),
    ):
        pytest.fail("both hold it")
    with exclusive_run(Path("train-c")):  # another place is free
        pass
    holder.communicate(timeout=600)
    with exclusive_run(Path(place)):
        pass
    assert list(Path().iterdir()) == []


def test_a_killed_run_holds_nothing(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=600)
    with exclusive_run(Path("train-a"), Path("train-b")):
        pass
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("workplace")
def test_an_error_lets_go() -> None:
    with pytest.raises(ZeroDivisionError), exclusive_run(Path("train-a")):
        raise ZeroDivisionError
    with exclusive_run(Path("train-a")), pytest.raises(UserError), exclusive_run(Path("train-a")):
        pytest.fail("both hold it")
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("holder")
def test_the_leader_of_a_launch_holds_for_all() -> None:
    with exclusive_run(Path("train-a"), is_main=False):
        pass
