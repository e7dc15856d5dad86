import pytest
from diffusers import UNet2DConditionModel
from toy_adapters import toy_unet


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return toy_unet()
