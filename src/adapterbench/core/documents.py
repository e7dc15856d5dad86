"""JSON files of a declared structure; a file of another structure is rejected as a whole."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from adapterbench.core.errors import InputError, UserError, one_line, short_repr
from adapterbench.core.problems import problems


class Document(BaseModel):
    """Content of a JSON file; undeclared fields are ignored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""Name of a file in the same folder as the document."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Hex digest of a file's bytes."""

SHOWN = 3
"""Most problems that an error names."""

T = TypeVar("T")


def read_document(kind: type[T], path: Path, what: str, remedy: str | None = None) -> T:
    """Read a JSON file.

    Args:
        kind: a `Document`, or a type such as `dict[str, float]`.
        path: of the file.
        what: what the file should be, such as "the manifest of shards".
        remedy: what the user should do; None: the file can be generated again (`InputError`).

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
    """A JSON object without duplicate keys; an `object_pairs_hook` of `json.loads`.

    Raises:
        ValueError: a key occurs twice; JSON readers disagree on which value counts.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        duplicate = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise ValueError(f"it has {short_repr(duplicate)} twice")
    return values


def parse_document(kind: type[T], data: bytes) -> T:
    """Parse JSON text as `kind`.

    Raises:
        ValueError: it is not JSON or has another structure.
    """
    try:
        return TypeAdapter[T](kind).validate_json(data, strict=True)
    except ValidationError as error:
        clauses = problems(error)
        more = [f"and {len(clauses) - SHOWN} more"] if len(clauses) > SHOWN else []
        raise ValueError("; ".join([*clauses[:SHOWN], *more])) from error
