"""Run a stage with the code of this copy of the project, through a launcher if one is set.

    python stages/launch.py stages/train.py ip_adapter --encoded data/encoded ...

Every `cmd` of the pipelines starts here. The `src` beside this folder comes first on the import
path, so a copy of the project (DVC makes one for a queued experiment) runs its own code.

ADAPTERBENCH_LAUNCH, for instance `accelerate launch --num_processes 8`, starts the stages that can
share their work in several processes. It is read here and not by a shell, so a stage's command, and
with it its digest in dvc.lock, is the same on every machine.

It needs the standard library alone: it runs before anything is known to be installed.
"""

import gc
import os
import runpy
import sys
from contextlib import suppress
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"

SHARING = {"encode", "train", "sample", "score", "further_split", "illustrate", "layers"}
"""Stages whose processes share the work; in other stages all would do the same."""


def main(script: str, *arguments: str) -> None:
    """Run `script` with its arguments; leave with its exit code."""
    sys.path[:1] = [str(SRC), str(Path(script).resolve().parent)]
    paths = [str(SRC), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # for the processes it starts
    gc.disable()  # until the stage has imported what it needs: that takes a fifth of the time
    try:
        with suppress(ModuleNotFoundError):  # the stage says what is not installed
            from adapterbench.runs.identity import note_dvc  # of the `src` beside it

            note_dvc()
        if Path(script).stem in SHARING:
            from adapterbench.runs.launch import read_launcher, supervise

            if launcher := read_launcher():
                sys.exit(supervise([*launcher, script, *arguments]))
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:  # during imports; later the stage reports it
        print("error: interrupted as it started: run the same command again", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
