"""Train, sample, score and compare light image-prompt adapters for Stable Diffusion."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterbench.exchange.embeddings import load_embeddings as load_embeddings
    from adapterbench.exchange.embeddings import save_embeddings as save_embeddings
    from adapterbench.exchange.pipeline import load_adapter as load_adapter

__all__ = ["load_adapter", "load_embeddings", "save_embeddings"]
MODULES = {
    "load_adapter": "exchange.pipeline",
    "load_embeddings": "exchange.embeddings",
    "save_embeddings": "exchange.embeddings",
}


def __getattr__(name: str) -> Any:
    """A function for pipelines, whose libraries take seconds to import, when it is asked for."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
