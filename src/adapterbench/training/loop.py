"""One optimisation loop for everything that is trained here: exact to resume, quiet to read.

It waits for the device only where losses are logged or a checkpoint is written: there it looks at
the losses of all steps since, so that what is not finite is found before it is kept.

All randomness is drawn from (seed, step), and the learning rate is a function of the step, so a
checkpoint is the weights, the optimiser's moments and the step number; nothing else has a state.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from adapterbench.core.config import FitParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.core.seeds import mixed
from adapterbench.training.distributed import Team

log = logging.getLogger(__name__)

OnLog = Callable[[int, dict[str, float]], None]
"""(step, values) -> nothing: where a run reports to."""

Loss = Callable[[int, torch.Generator, slice], Tensor]
"""(step, generator, part) -> scalar mean loss of a part of the step's batch.

It draws from the generator alone, and for the whole batch whatever the part.
"""


@dataclass
class Fitted:
    """What a finished fit cost and how its loss went."""

    seconds: float = 0.0
    """Seconds in the loop; of a killed run, up to the checkpoint that was resumed."""
    samples_per_second: float = 0.0
    """Mean training speed."""
    losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the last entry)."""
    recent: list[float] = field(default_factory=list)
    """Losses since the last entry."""


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on all `numbers`, such as (seed, step)."""
    return torch.Generator().manual_seed(mixed(*numbers))


def step_generator(seed: int, step: int) -> torch.Generator:
    """What everything that is drawn for a step comes from."""
    return seeded(seed, step, 1)


def batch_indices(size: int, batch: int, seed: int, step: int) -> Int64[Tensor, " {batch}"]:
    """Sample numbers of a step `(batch,)`: epochs in a fresh order each, cut into batches.

    A pure function, so that a resumed run sees the batches of an unbroken one.
    """
    first, last = step * batch, (step + 1) * batch
    epochs = range(first // size, (last - 1) // size + 1)
    return torch.cat(
        [
            epoch_order(size, seed, epoch)[max(0, first - epoch * size) : last - epoch * size]
            for epoch in epochs
        ]
    )


@lru_cache(maxsize=2)  # a step lies in one epoch, or in two
def epoch_order(size: int, seed: int, epoch: int) -> Int64[Tensor, " {size}"]:
    """All sample numbers in the order of an epoch `(size,)`; drawn once, not at every step."""
    return torch.randperm(size, generator=seeded(seed, epoch))


def learning_rate(step: int, params: FitParams) -> float:
    """Linear warm-up, then cosine to zero at `params.steps`."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    return params.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    weights: list[nn.Parameter],
    loss: Loss,
    params: FitParams,
    resume: Path,
    on_log: OnLog,
    label: str = "train",
    team: Team | None = None,
) -> Fitted:
    """Minimise `loss` over `weights`, in place.

    Args:
        weights: what is trained, always in the same order.
        resume: checkpoint file; read when it exists, removed by the caller after publishing.
        on_log: called every `log_every` steps with `loss`, `learning_rate`, `samples_per_second`,
            in the process that leads.
        team: the processes that train together; the weights are on its device. This one alone
            when left out.

    Raises:
        UserError: the loss, the gradient or a weight is not finite (the last checkpoint is from
            before), or the batch cannot be shared.
    """
    team = team or Team()
    torch.set_flush_denormal(True)  # denormals slow a CPU's convolutions several times
    trainer = Trainer(weights, loss, params, team, label)
    fitted = Fitted()
    start = trainer.state.load(resume, fitted) if resume.exists() else 0
    meter = Meter(fitted, params, start)
    with tqdm(
        total=params.steps,
        initial=start,
        desc=label,
        unit="step",
        mininterval=1,
        disable=not team.leads,
    ) as bar:
        for step in range(start, params.steps):
            trainer.step(step)
            bar.update()
            done = step + 1
            last = done == params.steps
            saves = done % params.checkpoint_every == 0 and not last
            logs = done % params.log_every == 0 or last
            if saves or logs:
                fitted.recent += trainer.losses()
            if logs:
                values = meter.read(done)
                bar.set_postfix_str(
                    "loss {loss:.4f}, {samples_per_second:.0f} img/s".format(**values)
                )
                if team.leads:
                    on_log(done, values)
            if saves and team.leads:
                fitted.seconds = meter.seconds
                trainer.state.save(resume, done, fitted)
    trainer.finish()
    fitted.seconds = meter.seconds
    fitted.samples_per_second = params.steps * params.batch_size / fitted.seconds
    return fitted


class Trainer:
    """The weights with their optimiser and averages, moved one step at a time."""

    def __init__(
        self,
        weights: list[nn.Parameter],
        loss: Loss,
        params: FitParams,
        team: Team,
        label: str,
    ) -> None:
        """See `fit`.

        Raises:
            UserError: the batch cannot be shared.
        """
        self.weights, self.loss, self.params, self.team = weights, loss, params, team
        self.label = label
        self.parts = team.parts(params.batch_size)
        self.optimizer = team.accelerator.prepare(
            torch.optim.AdamW(
                weights,
                lr=params.learning_rate,
                betas=(0.9, 0.99),
                weight_decay=params.weight_decay,
                fused=weights[0].is_cuda,
            )
        )
        self.ema = EMAModel(weights, decay=params.ema_decay, use_ema_warmup=True, power=0.75)
        self.state = State(weights, self.optimizer, self.ema, team.accelerator)
        self.unread: list[tuple[int, Tensor, bool]] = []
        """Steps since `losses`: number; loss and gradient norm `(2,)`; whether fp16 may skip it."""

    def step(self, number: int) -> None:
        """Do step `number`, or have the device do it: nothing is waited for."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.params)
        value = self.team.backward(partial(self.loss_of, number), self.parts, self.weights)
        norm = self.team.accelerator.clip_grad_norm_(self.weights, self.params.max_grad_norm)
        self.unread.append((number, torch.stack([value, norm]), self.team.may_skip()))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.params.ema_decay:
            self.ema.step(self.weights)

    def losses(self) -> list[float]:
        """The mean loss of each step since the last call, when the device has done them.

        Raises:
            UserError: one of them, a gradient or a weight is not finite.
        """
        steps, self.unread = self.unread, []
        read = torch.stack([values for _, values, _ in steps]).tolist()
        for (number, _, may_skip), (loss, norm) in zip(steps, read, strict=True):
            if not (math.isfinite(loss) and (may_skip or math.isfinite(norm))):
                raise self.diverged(
                    f"the loss is not finite at step {number} (loss {loss}, gradient norm {norm})"
                )
        if not torch.stack([weight.isfinite().all() for weight in self.weights]).all():
            raise self.diverged(
                f"a weight is not finite after one of the steps {steps[0][0]} to {steps[-1][0]}"
            )
        return [loss for loss, _ in read]

    def diverged(self, cause: str) -> UserError:
        """What to do where numbers have gone beyond what floats hold."""
        return UserError(
            f"{self.label}: {cause}: lower learning_rate (now {self.params.learning_rate}) or look "
            "for bad inputs; nothing was published"
        )

    def loss_of(self, number: int, part: slice) -> Float[Tensor, ""]:
        """Loss of a part of a step's batch, by the step's own generator."""
        return self.loss(number, step_generator(self.params.seed, number), part)

    def finish(self) -> None:
        """Keep the averaged weights, where there are such."""
        if self.params.ema_decay:
            self.ema.copy_to(self.weights)


class Meter:
    """Clock and mean loss of a fit that may have gone on after a kill."""

    def __init__(self, fitted: Fitted, params: FitParams, start: int) -> None:
        self.fitted, self.params = fitted, params
        self.logged, self.last = start, time.perf_counter()
        self.began = self.last - fitted.seconds

    @property
    def seconds(self) -> float:
        """Seconds in the loop, those before a kill included."""
        return time.perf_counter() - self.began

    def read(self, done: int) -> dict[str, float]:
        """Note the mean loss since the last reading; it, the learning rate and the speed."""
        now = time.perf_counter()
        speed = (done - self.logged) * self.params.batch_size / (now - self.last)
        mean = sum(self.fitted.recent) / len(self.fitted.recent)
        self.fitted.losses.append((done, mean))
        self.fitted.recent.clear()
        self.logged, self.last = done, now
        rate = learning_rate(done - 1, self.params)
        return {"loss": mean, "learning_rate": rate, "samples_per_second": speed}


class State:
    """What a checkpoint holds, as one safetensors file."""

    def __init__(
        self,
        weights: list[nn.Parameter],
        optimizer: AcceleratedOptimizer,
        ema: EMAModel,
        accelerator: Accelerator,
    ) -> None:
        self.weights, self.optimizer, self.ema = weights, optimizer, ema
        self.scaler = accelerator.scaler
        """Of fp16 gradients; None in other precisions."""

    def save(self, path: Path, step: int, fitted: Fitted) -> None:
        """Write weights, averages, moments, the scale of fp16, the step and what was measured."""
        tensors: dict[str, Tensor] = {
            name: torch.tensor(getattr(fitted, name), dtype=torch.float64)
            for name in ("losses", "recent")
        }
        for number, weight in enumerate(self.weights):
            tensors[f"{number}.weight"] = weight.detach()
            tensors[f"{number}.average"] = self.ema.shadow_params[number]
            for name, value in self.optimizer.state[weight].items():
                tensors[f"{number}.state.{name}"] = value
        metadata = {
            "step": str(step),
            "ema_step": str(self.ema.optimization_step),
            "seconds": str(fitted.seconds),
            "scaler": json.dumps(self.scaler.state_dict() if self.scaler else None),
        }
        with publish(path) as beside:
            save_file({k: v.contiguous() for k, v in tensors.items()}, beside, metadata)

    @torch.no_grad()
    def load(self, path: Path, fitted: Fitted) -> int:
        """Restore everything; return the number of steps done."""
        with opened(path) as file:
            metadata = file.metadata()
            moments = {}
            for number, weight in enumerate(self.weights):
                weight.copy_(file.get_tensor(f"{number}.weight"))
                self.ema.shadow_params[number].copy_(file.get_tensor(f"{number}.average"))
                moments[number] = {
                    name: file.get_tensor(f"{number}.state.{name}")
                    for name in ("step", "exp_avg", "exp_avg_sq")
                }
            # torch's own, which puts each moment on its weight's device
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            if self.scaler:
                self.scaler.load_state_dict(json.loads(metadata["scaler"]))
            self.ema.optimization_step = int(metadata["ema_step"])
            fitted.losses = [(int(s), v) for s, v in file.get_tensor("losses").tolist()]
            fitted.recent = file.get_tensor("recent").tolist()
            fitted.seconds = float(metadata["seconds"])
        log.info("resuming at step %s", metadata["step"])
        return int(metadata["step"])


@contextmanager
def opened(path: Path) -> Iterator[safe_open]:
    """Open a checkpoint; a damaged one is a line that says what to do."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"checkpoint {path} does not fit this run ({error}): delete it to start over"
        ) from error
