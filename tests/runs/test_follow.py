"""The follower's process: it is one, nobody waits for it, and it outlives nobody for long."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
import yaml

from adapterbench.core.errors import UserError
from adapterbench.runs import follow
from adapterbench.runs.flush import flush
from adapterbench.runs.follow import MIN_MASKED, masked
from adapterbench.runs.record import Facts, stage_record

from .conftest import PATIENCE, stage, until

LAUNCH = Path(__file__).parents[2] / "stages/launch.py"
WAIT = "while not Path('go').exists(): time.sleep(0.1)"
"""What a stage does that ends when it is let go."""


def processes(project: Path, word: str = "") -> list[psutil.Process]:
    """Processes that were started in the project, those of one module or program alone."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        ours = process.info["cwd"] == str(project) and process.pid != os.getpid()
        if ours and (not word or word in process.info["cmdline"]):
            found.append(process)
    return found


def statuses(project: Path) -> list[str]:
    """States of the records that MLflow holds."""
    return sorted(Facts.read(path).status for path in project.glob("records/*/sent/*.json"))


@pytest.fixture
def followed(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose follower leaves a second after the last stage."""
    monkeypatch.setenv("ADAPTERBENCH_FOLLOW", "1")
    return project


def test_stages_at_once_have_one_follower_that_a_kill_does_not_end(followed: Path) -> None:
    """Four stages; one is killed, then the follower; the others end when they are let go."""
    body = f"{WAIT}\n        import sys; assert 'mlflow' not in sys.modules"
    stages = [
        subprocess.Popen(stage(body, name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for name in ("fetch", "train", "sample", "score")
    ]
    until(lambda: len(follow.unsent(followed)) == 4)
    until(lambda: len(processes(followed, "adapterbench.runs")) == 1)
    stages[0].kill()
    [follower] = processes(followed, "adapterbench.runs")
    follower.kill()
    until(lambda: follower not in processes(followed))  # its lock lives as long as it does
    Path("go").touch()
    # the pipes end with the stages, though their follower lives
    outputs = [running.communicate()[0].decode() for running in stages]
    assert [running.returncode for running in stages] == [-signal.SIGKILL, 0, 0, 0], outputs
    flush(followed, PATIENCE)  # a follower whose MLflow was too slow has left
    until(lambda: not processes(followed))
    assert statuses(followed) == ["finished", "finished", "finished", "killed"]


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found in Linux's /proc")
def test_the_end_of_a_launch_does_not_end_the_follower(
    followed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the launched process has left behind is ended."""
    monkeypatch.setenv("PYTHONPATH", str(LAUNCH.parents[1] / "src"))
    monkeypatch.setenv("ADAPTERBENCH_LAUNCH", sys.executable)
    monkeypatch.setenv("ADAPTERBENCH_FOLLOW", "600")
    worker = "subprocess.Popen([sys.executable, '-c', WORKER], start_new_session=True)"
    code = stage(f"import subprocess, sys; WORKER = 'import time; time.sleep(600)'; {worker}")[-1]
    Path("train.py").write_text(code)
    launch = [sys.executable, str(LAUNCH), "train.py"]
    subprocess.run(launch, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert {process.cmdline()[2] for process in processes(followed)} == {"adapterbench.runs"}
    until(lambda: len(processes(followed)) == 1)  # of two that start at once, one leaves
    [follower] = processes(followed)
    until(lambda: statuses(followed) == ["finished"])
    follower.terminate()
    until(lambda: not processes(followed))


def test_flush_waits_for_no_server_and_says_what_sends_the_rest(
    followed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush(followed, 0)  # nothing to send: nothing is started
    assert not processes(followed)
    monkeypatch.setenv("ADAPTERBENCH_FOLLOW", "0")
    with stage_record("train", variant="a", params={}):
        flush(followed, 0)  # nor does it wait for a stage at work
    assert not processes(followed)
    monkeypatch.setenv("ADAPTERBENCH_FOLLOW", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:pw@127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"lacks 1 records \(.*-train-a\): they are still being sent; `python"
    ):
        flush(followed, 0)
    until(lambda: not processes(followed))
    with pytest.raises(
        UserError, match=r"cannot send to http://\*\*\*@127.0.0.1:9: .*; `python -m"
    ):
        flush(followed, 0)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    flush(followed, 600)
    assert statuses(followed) == ["finished"]
    until(lambda: not processes(followed))


def test_a_killed_dvc_leaves_no_process_and_the_next_has_a_run_of_its_own(followed: Path) -> None:
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet", "--no-scm"], check=True)
    Path("stage.py").write_text(stage(WAIT)[-1])
    cmd = f"{sys.executable} stage.py"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"cmd": cmd}}}))
    running = subprocess.Popen([*dvc, "repro", "--quiet"])
    until(lambda: follow.unsent(followed))
    running.kill()
    running.wait()
    until(lambda: not processes(followed))
    assert statuses(followed) == ["interrupted"]
    Path("go").touch()
    subprocess.run([*dvc, "repro", "--quiet"], check=True)
    until(lambda: not processes(followed))
    assert statuses(followed) == ["finished", "interrupted"]
    assert len(list(followed.glob("records/*/sent"))) == 2


@pytest.mark.parametrize("rest", ["", "; exit $?"])
def test_a_dvc_killed_while_its_stage_imports_leaves_no_process(followed: Path, rest: str) -> None:
    """A shell that has more to run stays the stage's parent when its own, DVC, has died."""
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet", "--no-scm"], check=True)
    imports = f"import time\nfrom pathlib import Path\nPath('importing').touch()\n{WAIT}\n"
    Path("stage.py").write_text(imports + stage("Path('trained').touch()")[-1])
    cmd = f"{sys.executable} {LAUNCH} stage.py{rest}"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"cmd": cmd}}}))
    running = subprocess.Popen([*dvc, "repro", "--quiet"])
    until(Path("importing").exists)
    running.kill()
    running.wait()
    Path("go").touch()
    until(lambda: not processes(followed))
    assert not Path("trained").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ann:pw@host/path", "https://***@host/path"),
        ("postgresql+psycopg2://ann:p%40w@host/db", "postgresql+psycopg2://***@host/db"),
        ("postgresql://ann:p/w?1#2@host/db", "postgresql://***@host/db"),
        ("no answer from https://:tok@host: why?", "no answer from https://***@host: why?"),
        ("https://tok@host", "https://***@host"),
        ("odd:ann:pw@host", "odd:***@host"),
        ("unsupported 'odd+x://ann:p'w@host'", "unsupported 'odd+x://***@host'"),
        ("https://host/db?password=pw and more", "https://host/db?*** and more"),
        ("https://host/db?pw and more", "https://host/db?*** and more"),
        ("https://host/#access_token=pw", "https://host/?***"),
        ("ann:pw@host", "***@host"),
        ("http://a:pw@one,http://b:pw@two", "http://***@two"),
        ("host=db password='p w' user=ann", "host=db password=*** user=ann"),
        ("DRIVER={SQL Server};UID=ann;PWD=pw;", "DRIVER={SQL Server};UID=ann;PWD=***"),
        ("{'Authorization': 'Bearer pw'}", "{'Authorization': ***}"),
        ("Authorization: Bearer pw", "Authorization: ***"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("stage train@ip_adapter: 12:30", "stage train@ip_adapter: 12:30"),
        ("variants.a.tokens = 5: why? 1 == 2?", "variants.a.tokens = 5: why? 1 == 2?"),
    ],
)
def test_addresses_are_shown_without_their_secrets(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_no_password_gets_through_whatever_it_is_and_wherever_it_stands() -> None:
    draw = random.Random(20261126)
    signs = "".join(map(chr, range(33, 127))) + "äß€😀"
    for _ in range(2000):
        password = "".join(draw.choices(signs, k=draw.randint(MIN_MASKED, 20)))
        scheme = draw.choice(
            ["http://", "postgresql+psycopg2://", "odd_1.x://", "é://", "odd:", ""]
        )
        address = (
            f"{scheme}{draw.choice(['ann', '', 'ann@corp.example', 'ann%20b'])}:{password}@host/db"
        )
        text = draw.choice(["{}", "'{}': refused", "no ({}) and\n{}.", "uri={};x", "a@b {} c@d:1"])
        shown = masked(text.replace("{}", address))
        assert password not in shown, (address, shown)
        assert "@host" in shown


@pytest.mark.parametrize(
    "password", ["pass/word", "pass@word", "pass:word?x", "pass word", "pas%73/word"]
)
def test_nor_does_the_piece_of_a_password_that_a_parser_complains_of(password: str) -> None:
    address = f"http://ann:{password}@host"
    text = f"{address}: ValueError: port 'pass' in word@host of {unquote(address)}"
    shown = masked(text, address)
    assert not any(piece in shown for piece in ("pass", "word", "pas%73"))
    assert shown.startswith("http://***@host: ValueError: port '")
