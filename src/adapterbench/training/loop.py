"""Training loop with bit-exact resume.

It waits for the device only to log or to write a checkpoint. Then it checks the losses of all steps
since the last time, so that values that are not finite are found before they are saved.

Random numbers are drawn from (seed, step), and the learning rate is a function of the step. So the
state is the weights, their average, the optimiser's moments, the fp16 scale and the step number.
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
from adapterbench.core.errors import DivergedError, UserError
from adapterbench.core.files import publish
from adapterbench.core.seeds import mixed
from adapterbench.training.distributed import DistributedContext

log = logging.getLogger(__name__)

OnLog = Callable[[int, dict[str, float]], None]
"""(step, values) -> None: receives the logged values."""

Loss = Callable[[int, torch.Generator, slice], Tensor]
"""(step, generator, part) -> scalar mean loss of a part of the step's batch.

It draws from the generator only, and always for the whole batch.
"""


@dataclass
class FitResult:
    """Costs and loss curve of a finished fit."""

    seconds: float = 0.0
    """Seconds in the loop, including those of a killed run up to the resumed checkpoint."""
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
    """The generator of all random numbers of a step."""
    return seeded(seed, step, 1)


def batch_indices(size: int, batch: int, seed: int, step: int) -> Int64[Tensor, " {batch}"]:
    """Sample indices of a step `(batch,)`: reshuffled epochs, concatenated and cut into batches.

    A pure function, so a resumed run sees the same batches as an uninterrupted one.
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
    """All sample indices in the order of an epoch `(size,)`; cached over its steps."""
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
    context: DistributedContext | None = None,
    first_step: int = 0,
) -> FitResult:
    """Minimise `loss` over `weights`, in place.

    Args:
        weights: the trained parameters, always in the same order.
        resume: checkpoint file; read when it exists, removed by the caller after publishing.
        on_log: called every `log_every` steps with `loss`, `learning_rate`, `samples_per_second`,
            in the main process.
        context: the processes of the training; the weights are on its device. None: this process
            alone.
        first_step: where there is no checkpoint; above 0 for weights that were trained before.

    Raises:
        UserError: the loss, a gradient or a weight is not finite (the last checkpoint is older), or
            the batch cannot be divided.
    """
    context = context or DistributedContext()
    torch.set_flush_denormal(True)  # denormals make convolutions on a CPU several times slower
    trainer = Trainer(weights, loss, params, context, label)
    fitted = FitResult()
    start = trainer.state.load(resume, fitted) if resume.exists() else first_step
    meter = Meter(fitted, params, start)
    with tqdm(
        total=params.steps,
        initial=start,
        desc=label,
        unit="step",
        mininterval=1,
        disable=not context.is_main,
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
                if context.is_main:
                    on_log(done, values)
            if saves and context.is_main:
                fitted.seconds = meter.seconds
                trainer.state.save(resume, done, fitted)
    trainer.finish()
    fitted.seconds = meter.seconds
    fitted.samples_per_second = (params.steps - first_step) * params.batch_size / fitted.seconds
    return fitted


class Trainer:
    """The weights, their optimiser and their moving average, updated step by step."""

    def __init__(
        self,
        weights: list[nn.Parameter],
        loss: Loss,
        params: FitParams,
        context: DistributedContext,
        label: str,
    ) -> None:
        """See `fit`.

        Raises:
            UserError: the batch cannot be divided.
        """
        self.weights, self.loss, self.params, self.context = weights, loss, params, context
        self.label = label
        self.parts = context.parts(params.batch_size)
        self.optimizer = context.accelerator.prepare(
            torch.optim.AdamW(
                weights,
                lr=params.learning_rate,
                betas=(0.9, 0.99),
                weight_decay=params.weight_decay,
                fused=weights[0].is_cuda,
            )
        )
        self.ema = EMAModel(
            weights,
            decay=params.ema_decay,
            use_ema_warmup=True,
            power=0.75,
            foreach=weights[0].is_cuda,
        )
        self.state = State(weights, self.optimizer, self.ema, context.accelerator)
        self.unread: list[tuple[int, Tensor, bool]] = []
        """Steps since `losses`: number, (loss, gradient norm), whether fp16 may skip it."""

    def step(self, number: int) -> None:
        """Run step `number`; does not wait for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.params)
        value = self.context.backward(partial(self.loss_of, number), self.parts, self.weights)
        norm = self.context.accelerator.clip_grad_norm_(self.weights, self.params.max_grad_norm)
        self.unread.append((number, torch.stack([value, norm]), self.context.may_skip()))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.params.ema_decay:
            self.ema.step(self.weights)

    def losses(self) -> list[float]:
        """The mean loss of each step since the last call; waits for the device.

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

    def diverged(self, cause: str) -> DivergedError:
        """The error for values that are not finite."""
        return DivergedError(
            f"{self.label}: {cause}: lower learning_rate (now {self.params.learning_rate}) or look "
            "for bad inputs; nothing was published"
        )

    def loss_of(self, number: int, part: slice) -> Float[Tensor, ""]:
        """Loss of a part of a step's batch, with the generator of the step."""
        return self.loss(number, step_generator(self.params.seed, number), part)

    def finish(self) -> None:
        """Replace the weights by their moving average, if there is one."""
        if self.params.ema_decay:
            self.ema.copy_to(self.weights)


class Meter:
    """Clock and mean loss of a fit, which may have been resumed."""

    def __init__(self, fitted: FitResult, params: FitParams, start: int) -> None:
        self.fitted, self.params = fitted, params
        self.logged, self.last = start, time.perf_counter()
        self.began = self.last - fitted.seconds

    @property
    def seconds(self) -> float:
        """Seconds in the loop, including those of the resumed run."""
        return time.perf_counter() - self.began

    def read(self, done: int) -> dict[str, float]:
        """Record the mean loss since the last call; return it, the learning rate and the speed."""
        now = time.perf_counter()
        speed = (done - self.logged) * self.params.batch_size / (now - self.last)
        mean = sum(self.fitted.recent) / len(self.fitted.recent)
        self.fitted.losses.append((done, mean))
        self.fitted.recent.clear()
        self.logged, self.last = done, now
        rate = learning_rate(done - 1, self.params)
        return {"loss": mean, "learning_rate": rate, "samples_per_second": speed}


class State:
    """The state in a checkpoint, one safetensors file."""

    def __init__(
        self,
        weights: list[nn.Parameter],
        optimizer: AcceleratedOptimizer,
        ema: EMAModel,
        accelerator: Accelerator,
    ) -> None:
        self.weights, self.optimizer, self.ema = weights, optimizer, ema
        self.scaler = accelerator.scaler
        """Loss scaler of fp16; None in other precisions."""

    def save(self, path: Path, step: int, fitted: FitResult) -> None:
        """Write weights, averages, moments, the fp16 scale, the step and the measurements."""
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
    def load(self, path: Path, fitted: FitResult) -> int:
        """Restore the state; return the number of steps done."""
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
            # `load_state_dict` puts each moment on the device of its weight
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
    """Open a checkpoint.

    Raises:
        UserError: it is damaged or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"checkpoint {path} does not fit this run ({error}): delete it to start over"
        ) from error
