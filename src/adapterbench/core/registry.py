"""Modules chosen by name in `params.yaml`: the key is the file name, imported on demand."""

from importlib import import_module
from importlib.resources import files
from types import ModuleType

from adapterbench.core.errors import UserError


def keys(package: str) -> list[str]:
    """The keys that `load` accepts for `package`, sorted."""
    names = (entry.name for entry in files(package).iterdir())
    return sorted(name[:-3] for name in names if name.endswith(".py") and not name.startswith("_"))


def load(package: str, key: str) -> ModuleType:
    """Import `package.key`.

    Raises:
        UserError: there is no such module; the message lists the existing ones.
    """
    if key not in keys(package):
        kind = package.rpartition(".")[2].removesuffix("s")
        raise UserError(f"unknown {kind} {key!r} (there are {', '.join(keys(package))})")
    return import_module(f"{package}.{key}")
