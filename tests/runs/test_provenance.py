"""What a run came from."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from adapterbench.core.errors import UserError
from adapterbench.runs import provenance
from adapterbench.runs.provenance import Provenance, digest, peak_memory_mb

pytestmark = pytest.mark.usefixtures("project")


def run_git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)
    return done.stdout.decode().strip()


class TestGit:
    def test_outside_a_repository(self) -> None:
        assert provenance.revision() == {"revision": None, "dirty": None}
        assert provenance.experiment_name() == "workspace"

    def test_without_git(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert provenance.revision() == {"revision": None, "dirty": None}

    def test_code_and_settings_make_it_dirty_and_results_do_not(self) -> None:
        run_git("init", "-b", "trunk")
        assert provenance.revision()["revision"] is None  # no commit yet
        for name in ("params.yaml", "dvc.lock"):
            Path(name).write_text("a: 1\n")
        run_git("add", ".")
        run_git("commit", "-m", "first")
        head = run_git("rev-parse", "HEAD")
        assert provenance.revision() == {"revision": head, "dirty": False}
        Path("dvc.lock").write_text("a: 2\n")
        assert provenance.revision()["dirty"] is False
        Path("params.yaml").write_text("a: 2\n")
        assert provenance.revision() == {"revision": head, "dirty": True}
        assert provenance.experiment_name() == "trunk"
        run_git("checkout", "--detach")
        assert head.startswith(provenance.experiment_name())

    def test_a_dvc_experiment_gives_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DVC_EXP_NAME", "bumpy-kite")
        assert Provenance.here().experiment == "bumpy-kite"


class TestDigest:
    def test_a_file(self) -> None:
        Path("a.bin").write_bytes(b"abc")
        assert digest(Path("a.bin")) == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"

    def test_a_folder_with_a_manifest(self) -> None:
        Path("shards").mkdir()
        Path("shards/manifest.json").write_bytes(b"{}")
        assert digest(Path("shards")) == f"manifest:{hashlib.sha256(b'{}').hexdigest()}"

    def test_a_folder_without_one_follows_names_and_sizes(self) -> None:
        Path("shards").mkdir()
        Path("shards/a").write_text("1")
        first = digest(Path("shards"))
        assert first.startswith("listing:")
        assert digest(Path("shards")) == first
        Path("shards/b").write_text("1")
        assert digest(Path("shards")) != first

    def test_dvc_knows_its_outputs_while_it_runs_the_stage(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("data/shards").mkdir(parents=True)
        Path("data/shards/a").write_text("1")
        outs = [{"path": "data/shards", "hash": "md5", "md5": "0123.dir"}]
        lock = {"schema": "2.0", "stages": {"prepare": {"cmd": "x", "outs": outs}, "b": {}}}
        Path("dvc.lock").write_text(yaml.safe_dump(lock))
        assert digest(Path("data/shards")).startswith("listing:")
        monkeypatch.setenv("DVC_STAGE", "train")
        assert digest(Path("data/shards")) == "md5:0123.dir"
        assert digest(Path("data/shards/a")) == "md5:0123.dir"

    def test_a_missing_input_is_the_users_to_mend(self) -> None:
        with pytest.raises(UserError, match=r"data is missing: run `dvc repro`"):
            digest(Path("data"))


def test_peak_memory_is_in_mebibytes() -> None:
    before = peak_memory_mb()
    held = bytearray(os.urandom(1)) * (int(before) + 200) * 2**20
    assert peak_memory_mb() - before > 100
    assert len(held) > before * 2**20
