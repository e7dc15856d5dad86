"""Parts chosen by name in `params.yaml`: a key is a file's name, imported when it is asked for."""

from importlib import import_module
from importlib.resources import files
from types import ModuleType

from adapterbench.core.errors import UserError


def keys(package: str) -> list[str]:
    """The names that `load` takes for `package`, sorted."""
    names = (entry.name for entry in files(package).iterdir())
    return sorted(name[:-3] for name in names if name.endswith(".py") and not name.startswith("_"))


def load(package: str, key: str) -> ModuleType:
    """Import `package.key`.

    Raises:
        UserError: no such file; the message lists those that exist.
    """
    if key not in keys(package):
        kind = package.rpartition(".")[2]
        raise UserError(f"unknown {kind} {key!r} (there are {', '.join(keys(package))})")
    return import_module(f"{package}.{key}")
