"""JSON files of a known structure: one of another structure is refused, not half understood."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from adapterbench.core.errors import InputError, UserError, one_line, short_repr
from adapterbench.core.problems import problems


class Document(BaseModel):
    """What a JSON file holds; fields that are not declared are left alone."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""Of a file in the same folder as the document that names it."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Hex digest of a file's bytes."""

SHOWN = 3
"""Places that an error names, of all that are wrong."""

T = TypeVar("T")


def read_document(kind: type[T], path: Path, what: str, remedy: str | None = None) -> T:
    """Read a JSON file.

    Args:
        kind: a `Document`, or a type such as `dict[str, float]`.
        path: of the file.
        what: the file should be, such as "the manifest of shards".
        remedy: what mends the file; None: a program made it, and makes it again.

    Raises:
        UserError: it is missing, is not JSON or has another structure.
    """
    try:
        return parse_document(kind, path.read_bytes())
    except FileNotFoundError:
        cause = f"{path} is missing"
    except OSError as error:
        cause = f"{path} cannot be read ({error.strerror})"
    except ValueError as error:
        cause = f"{path} is not {what} ({one_line(error)})"
    raise UserError(f"{cause}: {remedy}") if remedy else InputError(cause, path)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file that a person or another tool wrote; a hook of `json.loads`.

    Raises:
        ValueError: it has a name twice, of which readers take one or the other.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise ValueError(f"it has {short_repr(twice)} twice")
    return found


def parse_document(kind: type[T], data: bytes) -> T:
    """A JSON text as `kind`.

    Raises:
        ValueError: it is not JSON, or has another structure.
    """
    try:
        return TypeAdapter[T](kind).validate_json(data, strict=True)
    except ValidationError as error:
        clauses = problems(error)
        more = [f"and {len(clauses) - SHOWN} more"] if len(clauses) > SHOWN else []
        raise ValueError("; ".join([*clauses[:SHOWN], *more])) from error
