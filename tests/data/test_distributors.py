"""What img2dataset and Ray are told, with stand-ins; test_urls.py runs the real ones."""

import sys
from types import ModuleType
from typing import Any

import pytest

from adapterbench.data import distributors

OPTIONS = ("--url_list=list", "--distributor=ray")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins of img2dataset and Ray; what they are told."""
    told: dict[str, Any] = {}

    def init(address: str, **options: Any) -> None:
        if address == "nowhere":
            raise ConnectionError("no Ray\nat nowhere")
        told["ray"] = (address, options)

    def main() -> None:
        told["img2dataset"] = sys.argv[1:]

    stand_ins: dict[str, dict[str, Any]] = {
        "img2dataset": {},
        "img2dataset.main": {"main": main},
        "ray": {"init": init},
    }
    for name, attributes in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["distributors.py"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return told


def test_by_itself_nothing_else_is_started(told: dict[str, Any]) -> None:
    distributors.main("multiprocessing", "3", "{}", *OPTIONS)
    assert told == {"img2dataset": list(OPTIONS)}


def test_without_a_name_the_processes_are_here(told: dict[str, Any]) -> None:
    distributors.main("ray", "3", '{"A": "1"}', *OPTIONS)
    address, options = told["ray"]
    assert (address, options["num_cpus"]) == ("local", 3)
    assert options["runtime_env"] == {"env_vars": {"A": "1"}}
    assert told["img2dataset"] == list(OPTIONS)


def test_a_named_cluster_has_its_own_processes(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    distributors.main("ray", "3", "{}", *OPTIONS)
    assert told["ray"] == ("10.0.0.1:6379", {"runtime_env": {"env_vars": {}}})


def test_a_cluster_that_is_not_there_is_one_line(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(SystemExit, match=r"^ray does not start: no Ray at nowhere$"):
        distributors.main("ray", "3", "{}", *OPTIONS)
    assert not told
