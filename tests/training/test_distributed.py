"""What a process gets of a batch, and what cutting and rounding do to its gradients."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from adapterbench.core.errors import UserError
from adapterbench.training.distributed import DistributedContext

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A process has one precision for life; a test has its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def member(processes: int, rank: int, accumulate: int) -> DistributedContext:
    context = DistributedContext(accumulate=accumulate)
    context.accelerator = SimpleNamespace(num_processes=processes, process_index=rank)
    return context


def gradient(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def gradients(context: DistributedContext) -> tuple[list[Tensor], Tensor, set[torch.dtype]]:
    """Gradients and loss of a layer over the batch, and what the layer gave out."""
    torch.manual_seed(0)
    layer, dtypes = nn.Linear(5, 2), set()

    def loss(part: slice) -> Tensor:
        out = layer(X[part])
        dtypes.add(out.dtype)
        return out.float().square().mean()

    weights = list(layer.parameters())
    value = context.backward(loss, context.parts(len(X)), weights)
    return [gradient(weight) for weight in weights], value, dtypes


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (1, 3), (2, 1), (4, 3), (3, 2)])
def test_shares_make_up_the_batch(processes: int, accumulate: int) -> None:
    shares = [member(processes, rank, accumulate).parts(12) for rank in range(processes)]
    assert {len(share) for share in shares} == {accumulate}
    assert [n for share in shares for part in share for n in range(12)[part]] == list(range(12))


@pytest.mark.parametrize(("processes", "accumulate"), [(5, 1), (1, 7), (4, 2), (24, 1)])
def test_a_batch_that_cannot_be_shared_is_one_line(processes: int, accumulate: int) -> None:
    with pytest.raises(UserError, match=f"batch_size 12 .*{processes} processes") as caught:
        member(processes, 0, accumulate).parts(12)
    assert "\n" not in str(caught.value)


def test_alone_and_uncut_a_gradient_keeps_its_bits() -> None:
    ours, value, _ = gradients(DistributedContext())
    torch.manual_seed(0)
    layer = nn.Linear(5, 2)
    loss = layer(X).square().mean()
    loss.backward()
    assert torch.equal(value, loss)
    assert all(torch.equal(a, gradient(w)) for a, w in zip(ours, layer.parameters(), strict=True))


def test_a_cut_batch_has_the_gradient_of_the_whole() -> None:
    whole, cut = gradients(DistributedContext()), gradients(DistributedContext(accumulate=4))
    torch.testing.assert_close(whole[:2], cut[:2])


def test_bf16_computes_forward_in_bf16_and_keeps_gradients_in_fp32() -> None:
    ours, value, dtypes = gradients(DistributedContext("bf16"))
    assert dtypes == {torch.bfloat16}
    assert {gradient.dtype for gradient in (*ours, value)} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_a_precision_that_the_device_lacks_is_one_line() -> None:
    with pytest.raises(UserError, match="mixed_precision = 'fp16'") as caught:
        DistributedContext("fp16")
    assert "\n" not in str(caught.value)


def test_fp16_skips_while_its_scale_may_be_to_blame() -> None:
    """Gradients that are never finite: the scale goes 4, 2, 1, and then it is an error."""
    context, weight = DistributedContext(), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight])
    context.accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    skipped = 0
    while context.may_skip():
        weight.grad = torch.full((1,), torch.nan)
        scaler.step(optimizer)
        scaler.update()
        skipped += 1
    assert skipped == 3
    assert weight.item() == 0


def test_without_fp16_no_step_is_skipped() -> None:
    assert not DistributedContext().may_skip()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has a memory of its own")
def test_a_cpu_has_no_memory_of_its_own() -> None:
    assert DistributedContext().peak_memory_mb() is None


def test_the_memory_of_a_gpu_is_what_its_tensors_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    context = DistributedContext()
    resets: list[torch.device] = []
    context.accelerator = SimpleNamespace(device=torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: device.index * 3 * 2**20)
    context.reset_peak_memory()
    assert resets == [context.device]
    assert context.peak_memory_mb() == 3
