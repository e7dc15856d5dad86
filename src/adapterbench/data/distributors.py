"""img2dataset by itself, or on Spark or Ray, which share its tars among processes or machines.

The Python of img2dataset's own environment runs this file, so it imports nothing of this package:

    python -P distributors.py NAME PROCESSES SETTINGS [options of img2dataset]

A Spark cluster is named by `MASTER`, a Ray cluster by `RAY_ADDRESS`, as Spark and Ray themselves
read them; without these, the work is shared by `PROCESSES` local processes. The machines share the
project's folder, at the same path.
"""

import json
import os
import sys


def start_pyspark(processes: str, settings: dict[str, str]) -> None:
    """Start the session that img2dataset finds; its own is local and asks for 16 GB."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = SparkSession.builder.master(os.environ.get("MASTER") or f"local[{processes}]")
    for name, value in settings.items():
        session = session.config(f"spark.executorEnv.{name}", value)
    session.appName("img2dataset").getOrCreate()


def start_ray(processes: str, settings: dict[str, str]) -> None:
    """Connect to Ray; img2dataset would start it without the settings, on all cores."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    here = {} if address else {"num_cpus": int(processes), "include_dashboard": False}
    ray.init(address or "local", runtime_env={"env_vars": settings}, **here)


START = {"pyspark": start_pyspark, "ray": start_ray}


def main(name: str, processes: str, settings: str, *options: str) -> None:
    """Start the distributor, then run img2dataset with these options."""
    from img2dataset.main import main as run_img2dataset

    if name in START:
        try:
            START[name](processes, json.loads(settings))
        except Exception as error:
            sys.exit(f"{name} does not start: {' '.join(str(error).split())}")
    sys.argv[1:] = options
    run_img2dataset()


if __name__ == "__main__":
    main(*sys.argv[1:])
