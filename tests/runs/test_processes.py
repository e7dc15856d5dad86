"""Stages in two processes over gloo against one; a run that is killed and started again."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy_backbone
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from accelerate.utils import PrepareForLaunch, patch_environment
from torch.multiprocessing.spawn import start_processes
from toy_backbone import Toy

import adapterbench.encoding.shards as module
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.config import CompareParams, IllustrateParams, LayersParams
from adapterbench.encoding.shards import encode
from adapterbench.formats.shards import Shard
from adapterbench.illustrating import layers
from adapterbench.illustrating.illustrate import Inputs, illustrate
from adapterbench.runs.processes import process_state, share
from adapterbench.runs.program import guarded
from adapterbench.sampling.sampler import Sampler, sample
from adapterbench.scoring.scores import load_scorer, score_samples

SAMPLE = toy_backbone.SAMPLE.model_copy(update={"items": 5, "batch_size": 2})

ILLUSTRATE = IllustrateParams.model_validate(
    {
        "prompts": [{"image": "frame", "text": "blue"}, {"image": "diamond", "text": "red"}],
        "scales": [0, 1],
        "sweep_items": 3,
        "twin_cosine": None,
        "pairs": 2,
    }
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in the same order everywhere; and a fork of a process with threads may hang."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def alone(toy: Toy, workplace: Path) -> dict[str, bytes]:
    """What one process encodes."""
    encode_toy(toy, Path("alone"))
    return contents(workplace / "alone")


def together(call: Callable[..., Any], *arguments: Any) -> None:
    """Run `call` in two processes of a group. They are forked: nothing is imported again."""
    debug_launcher(joined, (call, *arguments), num_processes=2)


def joined(call: Callable[..., Any], *arguments: Any) -> None:
    """Run in a process of `together`, which knows its parent's state and must forget it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    assert process_state().num_processes == 2
    call(*arguments)


def encode_toy(toy: Toy, out: Path) -> None:
    encode(toy.encode_params, toy.shards, toy.backbone, out)


def sample_and_score(toy: Toy, out: Path) -> None:
    samples = out / "toy"
    sample(SAMPLE, toy.encoded, toy.backbone, toy.adapter, ["image"], samples)
    scorer = load_scorer(toy.score_params(batch_size=2), toy.folders, toy.shards, samples)
    score_samples(scorer, samples, out / "scores.parquet")


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_make_up_the_whole(count: int) -> None:
    states = [SimpleNamespace(num_processes=count, process_index=rank) for rank in range(count)]
    shares = [share(range(5), state) for state in states]
    assert sorted(task for each in shares for task in each) == list(range(5))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_two_processes_encode_the_same_bytes(toy: Toy, alone: dict[str, bytes]) -> None:
    together(encode_toy, toy, Path("encoded"))
    assert contents(Path("encoded")) == alone
    assert list(Path(".resume").iterdir()) == []


def test_encoding_goes_on_after_a_kill(
    toy: Toy, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes are killed once one has finished a shard; then one goes on alone."""
    run = get_context("fork").Process(target=in_a_group, args=(toy,))
    run.start()
    while not list(Path().glob(".resume/encode-*/*.json")):
        assert run.is_alive()
        time.sleep(0.001)
    assert run.pid is not None
    os.killpg(run.pid, signal.SIGKILL)
    run.join()
    done = list(Path().glob(".resume/encode-*/*.json"))
    assert 1 <= len(done) < 4
    assert not Path("encoded").exists()

    one_shard, encoded = module.encode_shard, []

    def counted(shard: Shard, *others: Any) -> None:
        encoded.append(shard.path.stem)
        one_shard(shard, *others)

    monkeypatch.setattr(module, "encode_shard", counted)
    encode_toy(toy, Path("encoded"))
    assert sorted(encoded + [path.stem for path in done]) == [
        "train-00000", "train-00001", "train-00002", "validation-00000",
    ]  # fmt: skip
    assert contents(Path("encoded")) == alone


def in_a_group(toy: Toy) -> None:
    """Encode in two processes that one signal reaches."""
    os.setsid()
    together(encode_toy, toy, Path("encoded"))


def test_the_other_process_ends_when_one_is_killed(
    toy: Toy, workplace: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, with nothing half-written; then one goes on alone."""
    one_shard = module.encode_shard

    def deadly(shard: Shard, *others: Any) -> None:
        if process_state().process_index == 1 and shard.path.stem == "validation-00000":
            os.kill(os.getpid(), signal.SIGKILL)
        one_shard(shard, *others)

    def noisily() -> None:
        with Path(f"error-{process_state().process_index}").open("w", buffering=1) as file:
            sys.stderr = file
            guarded(encode_toy)(toy, Path("encoded"))

    with monkeypatch.context() as patch:
        patch.setattr(module, "encode_shard", deadly)
        run = get_context("fork").Process(target=as_a_launcher_does, args=(joined, noisily))
        run.start()
        run.join()  # no limit of time but pytest's: both end, however slow the machine
    assert run.exitcode == 0
    lines = (workplace / "error-0").read_text().splitlines()
    said = [line for line in lines if line.startswith("error:") or "Traceback" in line]
    assert said == [
        "error: another process of this launch has ended: see what it said, or whether it was "
        "killed, and run the same command again"
    ]
    assert not Path("encoded").exists()
    encode_toy(toy, Path("encoded"))
    assert contents(Path("encoded")) == alone


def as_a_launcher_does(call: Callable[..., Any], *arguments: Any) -> None:
    """Run `call` in two processes of a group, and let each of them end as it will."""
    with NamedTemporaryFile() as meeting:
        settings = {"world_size": 2, "master_addr": "127.0.0.1", "master_port": "29501"}
        cpu = {"accelerate_use_cpu": "yes", "accelerate_debug_rdv_file": meeting.name}
        with patch_environment(**settings, **cpu):
            target = PrepareForLaunch(call, debug=True)
            started = start_processes(target, arguments, 2, join=False, start_method="fork")
            for process in started.processes:
                process.join()
    codes = [process.exitcode for process in started.processes]
    assert codes == [1, -signal.SIGKILL], codes


@pytest.mark.usefixtures("workplace")
def test_two_processes_sample_and_score_the_same_bytes(toy: Toy) -> None:
    sample_and_score(toy, Path("one"))
    together(sample_and_score, toy, Path("two"))
    assert contents(Path("two")) == contents(Path("one"))
    assert contents(Path("one")).keys() == {"toy/image.tar", "scores.parquet"}


def illustrate_toy(toy: Toy, out: Path) -> None:
    inputs = Inputs(toy.encoded, toy.shards, toy.backbone, Path("bases"), toy.adapter)
    illustrate(ILLUSTRATE, SAMPLE, toy.score_params(), inputs, toy.folders, out / "toy")


class Counted:
    """Counts the draws of samplers; the one of number `stop` is interrupted."""

    def __init__(self, patch: pytest.MonkeyPatch, stop: int | None = None) -> None:
        self.draws = 0
        draw = Sampler.draw

        def counted(sampler: Sampler, *arguments: Any) -> list[Any]:
            self.draws += 1
            if self.draws == stop:
                raise KeyboardInterrupt
            return draw(sampler, *arguments)

        patch.setattr(Sampler, "draw", counted)


@dataclass
class Illustrated:
    """What one process draws of an adapter, on two bases."""

    files: dict[str, bytes]
    draws: int


@pytest.fixture(scope="module")
def once(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Illustrated:
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("once")
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        link_bases(toy, folder)
        counted = Counted(patch)
        illustrate_toy(toy, Path("alone"))
    return Illustrated(contents(folder / "alone"), counted.draws)


@pytest.fixture
def illustrated(once: Illustrated, toy: Toy, workplace: Path) -> Illustrated:
    """The same run, in a folder with the two bases and nothing else."""
    link_bases(toy, workplace)
    return once


def link_bases(toy: Toy, folder: Path) -> None:
    (folder / "bases").mkdir()
    for name in ("one", "two"):
        (folder / "bases" / name).symlink_to(toy.backbone)


def test_two_processes_illustrate_the_same_bytes(toy: Toy, illustrated: Illustrated) -> None:
    together(illustrate_toy, toy, Path("shared"))
    assert contents(Path("shared")) == illustrated.files
    assert list(Path(".resume").iterdir()) == []
    assert {name.removeprefix("toy/") for name in illustrated.files} >= {
        *("prompts.tar", "bases/one.tar", "bases/two.tar", "sweep/0.tar", "sweep/1.tar"),
        *("sweep.parquet", "pairs.parquet", "pairs/restyle.json", "pairs/concept/image_only.tar"),
    }


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_illustrating_goes_on_after_a_kill(
    toy: Toy, illustrated: Illustrated, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    counted = Counted(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        illustrate_toy(toy, Path("again"))
    assert not Path("again").exists()
    illustrate_toy(toy, Path("again"))
    assert contents(Path("again")) == illustrated.files
    assert counted.draws == illustrated.draws + 1  # that which was interrupted is made again


def measure_toy(toy: Toy, out: Path) -> None:
    sections = LayersParams(variants=(), items=4), SAMPLE.model_copy(update={"steps": 1})
    intervals = CompareParams(bootstrap_samples=100, confidence=0.95, seed=0, labels={})
    params = layers.Params(*sections, toy.score_params(), intervals)
    variant = parse_variant(toy_backbone.VARIANT)
    inputs = layers.Inputs(toy.encoded, toy.shards, toy.folders, toy.adapter, variant)
    layers.measure(params, inputs, out / "toy.presets.json", out / "toy.layers")


def test_two_processes_measure_the_same_layers(toy: Toy, workplace: Path) -> None:
    measure_toy(toy, Path("alone"))
    together(measure_toy, toy, Path("shared"))
    assert contents(workplace / "shared") == contents(workplace / "alone")
    assert list(Path(".resume").iterdir()) == []
    names = {
        "toy.presets.json",
        "toy.layers/layers.csv",
        "toy.layers/all.tar",
        "toy.layers/off.tar",
    }
    assert contents(workplace / "shared").keys() >= names
