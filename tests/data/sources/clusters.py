"""Clusters of two workers on this machine, started as Spark's and Ray's own pages say."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 300
"""A cluster that is not up by then never will be."""


@dataclass
class Programs:
    """Programs that run in the background until the end of a test, and what they print."""

    folder: Path
    log: Path
    env: dict[str, str]
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, program: str, *arguments: Any) -> None:
        """Start a program of a folder, in a process group of its own."""
        command = [str(self.folder / program), *map(str, arguments)]
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self.env, start_new_session=True
            )
        self.running.append(process)

    def printed(self, pattern: str, times: int = 1) -> str:
        """What they printed last that matches the pattern, as soon as that many times."""
        until = time.monotonic() + SECONDS
        while len(found := re.findall(pattern, self.log.read_text())) < times:
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)
        last: str = found[-1]
        return last

    def end(self) -> None:
        """End all of them and what they started."""
        for process in self.running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Cluster:
    """How a cluster is named, and the files by which its workers show that they worked."""

    variables: dict[str, str]
    folder: Path
    traces: str

    def workers(self) -> int:
        """How many workers worked."""
        return len(list(self.folder.glob(self.traces)))


def start_spark(programs: Programs, folder: Path) -> Cluster:
    """A master and two workers of a core."""
    programs.env["PYSPARK_DRIVER_PYTHON"] = str(programs.folder / "python")
    address = f"spark://127.0.0.1:{free_port()}"
    common = ("--host", "127.0.0.1", "--webui-port", 0)
    deploy = "org.apache.spark.deploy"
    port = address.rpartition(":")[2]
    programs.start("spark-class", f"{deploy}.master.Master", *common, "--port", port)
    programs.printed("elected leader")
    for number in range(2):
        size = ("--cores", 1, "--memory", "1g", "--work-dir", folder / f"worker{number}")
        programs.start("spark-class", f"{deploy}.worker.Worker", *common, *size, address)
    programs.printed("Successfully registered with master", 2)
    return Cluster({"MASTER": address, "SPARK_LOCAL_IP": "127.0.0.1"}, folder, "worker*/app-*-0000")


def start_ray(programs: Programs, folder: Path) -> Cluster:
    """Two nodes of a core, with a token in `folder`."""
    programs.env["HOME"] = str(folder)
    node = ("start", "--block", "--num-cpus", 1)
    head = ("--head", "--port", free_port(), "--temp-dir", folder, "--include-dashboard", "false")
    programs.start("ray", *node, *head)
    address = programs.printed(r"--address='([^']+)'")
    programs.printed("Ray runtime started")
    programs.start("ray", *node, "--address", address)
    programs.printed("Ray runtime started", 2)
    variables = {"RAY_ADDRESS": address, "HOME": str(folder)}
    return Cluster(variables, folder, "session_latest/logs/worker-*-01000000-*.out")


START = {"pyspark": start_spark, "ray": start_ray}


@contextmanager
def running(distributor: str, programs: Path, folder: Path) -> Iterator[Cluster]:
    """A cluster by the programs of an environment, ended in the end."""
    background = Programs(programs, folder / "log", {"SPARK_LOCAL_IP": "127.0.0.1"})
    try:
        yield START[distributor](background, folder)
    finally:
        background.end()


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
