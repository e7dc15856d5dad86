"""The notebook, executed from its first cell to its last in a project of toy size."""

import json
import re
import shutil
from typing import Any

import pytest

from .project import ROOT, VARIANTS, Project


@pytest.mark.slow
def test_the_notebook_trains_what_is_missing_and_diffusers_agrees(project: Project) -> None:
    four_tokens = VARIANTS["ip_adapter"] | {"tokens": 4}  # diffusers reads no other number
    project.params(variants={"ip_adapter": four_tokens})
    (project.root / "examples/out").mkdir(parents=True)
    shutil.copy(ROOT / "examples/adapterbench.ipynb", project.root / "examples")
    project.run("jupyter", "execute", "examples/adapterbench.ipynb", "--output=out/executed")
    executed = json.loads((project.root / "examples/out/executed.ipynb").read_text())
    printed = [text(cell) for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert "Running stage 'train@ip_adapter'" in printed[2]
    assert sum("image/jpeg" in out for out in printed) == 3
    assert re.search(r"differ by at most [01] of 255", printed[-1])


def text(cell: dict[str, Any]) -> str:
    """What a cell printed and showed."""
    return json.dumps(cell["outputs"])
