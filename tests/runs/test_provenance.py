"""What a run came from."""

import hashlib
import subprocess
from pathlib import Path

import pytest
import yaml

from adapterbench.core.errors import UserError
from adapterbench.runs.provenance import digest, experiment_name, provenance

pytestmark = pytest.mark.usefixtures("project")


def run_git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)
    return done.stdout.decode().strip()


class TestExperimentName:
    def test_outside_a_repository(self) -> None:
        assert experiment_name() == "workspace"

    def test_the_branch_or_else_the_commit(self) -> None:
        run_git("init", "-b", "trunk")
        run_git("commit", "--allow-empty", "-m", "first")
        assert experiment_name() == "trunk"
        run_git("checkout", "--detach")
        assert run_git("rev-parse", "HEAD").startswith(experiment_name())

    def test_a_dvc_experiment_gives_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DVC_EXP_NAME", "bumpy-kite")
        assert provenance()["experiment"] == "bumpy-kite"


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
        with pytest.raises(UserError, match=r"data is missing: make it again"):
            digest(Path("data"))
