"""What tests of several packages share."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from toy_backbone import Toy


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the test runs in, as a stage runs in the project's root."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> "Toy":
    """Shards, backbone, encoded shards and an adapter of toy size; nobody writes there."""
    import toy_backbone

    return toy_backbone.make(tmp_path_factory.mktemp("toy"))
