"""The notebook as it is committed; `make examples` executes it, and so does tests/pipeline."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples/adapterbench.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    """The cells of a kind."""
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_its_outputs_are_those_of_one_run_without_an_error() -> None:
    code = cells("code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert any(
        "image/jpeg" in output.get("data", {}) for cell in code for output in cell["outputs"]
    )


def test_it_is_light_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 300_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", "".join(map(str, cells("markdown"))))
    assert links
    assert {link for link in links if not (NOTEBOOK.parent / link).exists()} == set()
