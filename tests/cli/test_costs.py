import pytest

from adapterbench.cli.costs import Device, sampling, training
from adapterbench.cli.flops import Passes
from adapterbench.core.config import SampleParams, TrainParams, load_params
from adapterbench.sampling.methods import training_free_method

pytestmark = pytest.mark.usefixtures("in_project")


def test_hours_are_work_over_speed() -> None:
    assert Device(tflops=100, utilisation=0.5).hours(int(50e12 * 3600 * 2)) == pytest.approx(2)


def test_a_training() -> None:
    params = load_params(TrainParams, "train").model_copy(update={"steps": 10, "batch_size": 4})
    found = training(1000, Passes(forward=7, backward=5), 0, params)
    assert found.optimizer_bytes == 16_000
    assert found.samples_seen == 40
    assert found.flops_per_step == 48
    assert found.flops == 480
    assert training(1000, Passes(forward=7, backward=5), 3, params).flops == 600
    again = params.model_copy(update={"gradient_checkpointing": True})
    assert training(1000, Passes(forward=7, backward=5), 3, again).flops == 880


@pytest.mark.parametrize(("guidance", "predictions"), [(1.0, 5), (3.0, 10)])
def test_the_images_of_two_variants_and_two_floors(guidance: float, predictions: int) -> None:
    changes = {"items": 3, "images_per_item": 2, "steps": 5, "guidance_scale": guidance}
    params = load_params(SampleParams, "sample").model_copy(update=changes)
    free = training_free_method("img2img", {"strength": 0.6})
    found = sampling([11, 13], bare=7, training_free=[free], decoder=17, params=params)
    # either protocol: both variants, a method without training, and the model without
    assert found.images == 6 * 2 * 4
    of_free = predictions * 3 // 5
    assert found.flops == 6 * 2 * ((11 + 13 + 7) * predictions + 7 * of_free + 4 * 17)
