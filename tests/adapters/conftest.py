from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from toy_adapters import DECOUPLED_FAMILY, VARIANTS, toy_unet


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return toy_unet()


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Every row."""
    return VARIANTS[request.param]


@pytest.fixture(params=DECOUPLED_FAMILY)
def decoupled_variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Every row whose image tokens have an attention of their own."""
    return DECOUPLED_FAMILY[request.param]
