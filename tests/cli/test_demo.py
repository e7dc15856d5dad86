from pathlib import Path

import pytest

from .conftest import Cli


def test_help_teaches(cli: Cli) -> None:
    shown = " ".join(cli("demo", "--help").output.split())
    assert "ADAPTERBENCH_PASSWORD" in shown
    assert "--share" not in shown


@pytest.mark.usefixtures("workplace")
def test_others_need_a_password(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTERBENCH_PASSWORD", raising=False)
    result = cli("demo", "--host", "0.0.0.0")
    assert result.exit_code == 1
    assert "set a password in ADAPTERBENCH_PASSWORD" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("toy_params")
def test_before_anything_is_trained(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # brought back at the end
    result = cli("demo")
    assert result.exit_code == 1
    assert "models has no trained adapter: run `make repro`, or copy" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]
