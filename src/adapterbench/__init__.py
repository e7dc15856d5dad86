"""Train, sample, score and compare light image-prompt adapters for Stable Diffusion."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterbench.exchange.pipeline import load_adapter as load_adapter

__all__ = ["load_adapter"]


def __getattr__(name: str) -> Any:
    """`load_adapter`, whose libraries take seconds to import, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.exchange.pipeline"), name)
