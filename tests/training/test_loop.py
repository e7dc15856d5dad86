"""The loop against plain torch, and a run that was killed against one that was not."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import get_cosine_schedule_with_warmup

import adapterbench.training.loop as module
from adapterbench.core.config import FitParams
from adapterbench.core.errors import UserError
from adapterbench.training.loop import FitResult, batch_indices, fit, learning_rate, seeded

SAMPLES = 10
WHOLE = slice(None)


def fit_params(**changes: Any) -> FitParams:
    values = {
        "steps": 11,
        "batch_size": 4,
        "learning_rate": 0.05,
        "weight_decay": 0.1,
        "warmup_steps": 3,
        "max_grad_norm": 0.5,
        "ema_decay": 0.0,
        "log_every": 4,
        "checkpoint_every": 3,
        "seed": 7,
    }
    return FitParams(**values | changes)


class Regression:
    """A linear layer that learns from noisy samples; `stop` happens in the loss of that step."""

    def __init__(self, params: FitParams, stop: int | None = None) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.x, self.y = torch.randn(SAMPLES, 3), torch.randn(SAMPLES, 2)
        self.params, self.stop = params, stop
        self.before: list[list[Tensor]] = []
        """The weights that each step starts from."""
        self.logged: list[tuple[int, dict[str, float]]] = []

    @property
    def weights(self) -> list[nn.Parameter]:
        return list(self.layer.parameters())

    def values(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.weights]

    def loss(self, step: int, generator: torch.Generator, part: slice = WHOLE) -> Tensor:
        if step == self.stop:
            raise KeyboardInterrupt
        self.before.append(self.values())
        index = batch_indices(SAMPLES, self.params.batch_size, self.params.seed, step)
        x = self.x[index] + 0.1 * torch.randn(len(index), 3, generator=generator)
        return (self.layer(x[part]) - self.y[index][part]).square().mean()

    def fit(self, resume: Path, first_step: int = 0) -> FitResult:
        return fit(
            self.weights,
            self.loss,
            self.params,
            resume,
            lambda step, values: self.logged.append((step, values)),
            first_step=first_step,
        )


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (7, 7), (5, 12), (1, 4), (6, 1)])
def test_every_sample_comes_once_an_epoch(size: int, batch: int) -> None:
    steps = math.lcm(size, batch) // batch * 2
    seen = torch.cat([batch_indices(size, batch, 3, step) for step in range(steps)])
    epochs = seen.view(-1, size)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(size).expand_as(epochs))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first = batch_indices(100, 8, seed=1, step=40)
    torch.manual_seed(123)
    torch.rand(5)
    assert torch.equal(first, batch_indices(100, 8, seed=1, step=40))
    assert not torch.equal(first, batch_indices(100, 8, seed=2, step=40))
    assert not torch.equal(batch_indices(8, 8, 1, 0), batch_indices(8, 8, 1, 1))  # a fresh order


def test_the_order_of_an_epoch_is_drawn_once() -> None:
    module.epoch_order.cache_clear()
    for step in range(9):  # 36 samples: four epochs of ten
        batch_indices(10, 4, 3, step)
    assert module.epoch_order.cache_info().misses == 4


def test_draws_differ_between_seeds_and_steps() -> None:
    numbers = {
        (seed, step): torch.rand(4, generator=seeded(seed, step, 1)).tolist()
        for seed in range(20)
        for step in range(20)
    }
    assert len({tuple(draw) for draw in numbers.values()}) == len(numbers)


def test_the_learning_rate_by_hand() -> None:
    params = fit_params(learning_rate=2.0, warmup_steps=2, steps=6)
    expected = [1.0, 2.0, 2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)]
    assert [learning_rate(step, params) for step in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 1, 10, 50])
def test_the_learning_rate_against_transformers(warmup: int) -> None:
    params = fit_params(steps=50, warmup_steps=warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = get_cosine_schedule_with_warmup(optimizer, warmup, 50).lr_lambdas[0]
    for step in range(50):
        # ours reaches the peak with the last warm-up step: a first step of rate 0 learns nothing
        factor = reference(step + 1 if step < warmup else step)
        assert learning_rate(step, params) == pytest.approx(params.learning_rate * factor)


def test_a_fit_is_plain_adamw(tmp_path: Path) -> None:
    params = fit_params()
    ours = Regression(params)
    fitted = ours.fit(tmp_path / "state")

    plain = Regression(params)
    optimizer = torch.optim.AdamW(plain.weights, betas=(0.9, 0.99), weight_decay=0.1)
    losses = []
    for step in range(params.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, params)
        optimizer.zero_grad()
        loss = plain.loss(step, seeded(params.seed, step, 1))
        loss.backward()
        nn.utils.clip_grad_norm_(plain.weights, params.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())

    assert same(ours.values(), plain.values())
    means = [(4, sum(losses[:4]) / 4), (8, sum(losses[4:8]) / 4), (11, sum(losses[8:]) / 3)]
    assert fitted.losses == means
    assert [(step, values["loss"]) for step, values in ours.logged] == fitted.losses
    assert [v["learning_rate"] for _, v in ours.logged] == [
        learning_rate(step, params) for step in (3, 7, 10)
    ]
    assert fitted.samples_per_second == pytest.approx(11 * 4 / fitted.seconds)


def test_the_average_by_hand(tmp_path: Path) -> None:
    params = fit_params(ema_decay=0.7)
    averaged, last = Regression(params), Regression(fit_params())
    averaged.fit(tmp_path / "a")
    last.fit(tmp_path / "b")
    path = [*last.before[1:], last.values()]  # the weights after each step
    average = path[0]
    for number, weights in enumerate(path[1:], start=1):
        decay = min(0.7, 1 - (1 + number) ** -0.75)
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    for ours, expected in zip(averaged.values(), average, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("stop", [1, 3, 5, 10])
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    params = fit_params(ema_decay=0.9)
    unbroken = Regression(params)
    fitted = unbroken.fit(tmp_path / "unbroken")

    with pytest.raises(KeyboardInterrupt):
        Regression(params, stop).fit(tmp_path / "state")
    resumed = Regression(params)
    again = resumed.fit(tmp_path / "state")

    assert same(resumed.values(), unbroken.values())
    assert again.losses == fitted.losses
    assert len(resumed.before) == params.steps - stop // 3 * 3  # from the last checkpoint on
    assert again.samples_per_second == pytest.approx(11 * 4 / again.seconds)


def test_weights_that_were_trained_before_go_on_from_their_step(tmp_path: Path) -> None:
    params = fit_params(ema_decay=0.9)
    unbroken = Regression(params)
    fitted = unbroken.fit(tmp_path / "unbroken", first_step=5)
    assert len(unbroken.before) == 6
    assert [step for step, _ in fitted.losses] == [8, 11]
    assert unbroken.logged[0][1]["learning_rate"] == learning_rate(7, params)
    assert fitted.samples_per_second == pytest.approx(6 * 4 / fitted.seconds)

    with pytest.raises(KeyboardInterrupt):
        Regression(params, 8).fit(tmp_path / "state", first_step=5)
    resumed = Regression(params)
    assert resumed.fit(tmp_path / "state", first_step=5).losses == fitted.losses
    assert len(resumed.before) == 5  # from the checkpoint at step 6 on
    assert same(resumed.values(), unbroken.values())


def killed_while_saving(resume: Path) -> None:
    """What the subprocess of the next test does: die with the second checkpoint half-written."""
    calls = []

    def half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata)
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(path.read_bytes()[:300])
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save_file", half)
        Regression(fit_params(ema_decay=0.9)).fit(resume)


def test_a_kill_while_saving_costs_no_more_than_the_steps_since(tmp_path: Path) -> None:
    call = (
        "import sys, pathlib, test_loop; test_loop.killed_while_saving(pathlib.Path(sys.argv[1]))"
    )
    state = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-c", call, str(state)],
        cwd=Path(__file__).parent,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL

    unbroken, resumed = (Regression(fit_params(ema_decay=0.9)) for _ in range(2))
    unbroken.fit(tmp_path / "unbroken")
    resumed.fit(state)
    assert same(resumed.values(), unbroken.values())
    assert len(resumed.before) == 11 - 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_one_line_and_keeps_the_checkpoint(
    tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Regression(fit_params())
    healthy = run.loss

    def bad_once(step: int, *rest: Any) -> Tensor:
        return healthy(step, *rest) * (bad if step == 5 else 1)

    monkeypatch.setattr(run, "loss", bad_once)
    with pytest.raises(UserError, match="not finite at step 5") as caught:
        run.fit(tmp_path / "state")
    assert "\n" not in str(caught.value)
    assert "learning_rate" in str(caught.value)
    resumed, unbroken = Regression(fit_params()), Regression(fit_params())
    resumed.fit(tmp_path / "state")
    unbroken.fit(tmp_path / "other")
    assert same(resumed.values(), unbroken.values())
    assert len(resumed.before) == 11 - 3


def test_a_gradient_that_is_not_finite_stops_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Regression(fit_params(log_every=1))
    healthy = run.loss
    monkeypatch.setattr(run, "loss", lambda *arguments: (healthy(*arguments) * 0).sqrt())
    with pytest.raises(UserError, match=r"at step 0 .*gradient norm nan"):
        run.fit(tmp_path / "state")


def test_weights_that_are_not_finite_are_never_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss before was finite, and the one after would come after the checkpoint."""
    run = Regression(fit_params())
    healthy = run.loss

    def overflows(step: int, *rest: Any) -> Tensor:
        value = healthy(step, *rest)
        if step == 2:
            run.layer.weight.data[0, 0] = math.inf
        return value

    monkeypatch.setattr(run, "loss", overflows)
    with pytest.raises(
        UserError, match="a weight is not finite after one of the steps 0 to 2"
    ) as caught:
        run.fit(tmp_path / "state")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "state").exists()


class Waits(TorchDispatchMode):
    """Counts how often a number is asked for, for which a device would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_the_device_is_waited_for_where_something_is_logged_alone(tmp_path: Path) -> None:
    counts = {}
    for every in (1, 11):
        run = Regression(fit_params(log_every=every, checkpoint_every=100))
        with Waits() as waits:
            run.fit(tmp_path / "state")
        counts[every] = waits.count
    own = 11 * len(run.weights)  # AdamW's counters of steps, which are on the CPU always
    assert counts == {1: own + 11, 11: own + 1}


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "other"])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, damage: str) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        Regression(fit_params(), stop=4).fit(state)
    data = state.read_bytes()
    damaged = {"cut": data[:-20], "empty": b"", "garbage": b"x" * 1000}
    state.write_bytes(damaged.get(damage, data))
    run = Regression(fit_params())
    if damage == "other":
        run.layer = nn.Linear(3, 5)
    with pytest.raises(UserError, match="delete it to start over") as caught:
        run.fit(state)
    assert str(state) in str(caught.value)
