"""What pydantic found wrong with values, as an error tells it."""

from collections.abc import Collection

from pydantic import ValidationError

from adapterbench.core.errors import short_repr

SENTENCES = {
    "missing": "{place} is missing",
    "extra_forbidden": "{place} is not a parameter",
    "value_error": "{place}: {message}",
    "json_invalid": "{place}: {message}",
}
"""By pydantic's type of an error; others have a value that is worth showing."""
OTHERS = "{place} = {value}: {message}"


def problems(error: ValidationError, root: str = "", fields: Collection[str] = ()) -> list[str]:
    """A clause for each place that is not as it should be.

    Args:
        error: of a model or a `TypeAdapter`.
        root: how the user knows what was checked, such as `train`; empty: a whole file.
        fields: its known names.
    """
    clauses = []
    for item in error.errors(include_url=False):
        place = ".".join(filter(None, (root, *map(str, item["loc"])))) or "content"
        sentence = SENTENCES.get(item["type"], OTHERS)
        clause = sentence.format(place=place, value=short_repr(item["input"]), message=item["msg"])
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1 and fields:
            clause += f" (known: {', '.join(sorted(fields))})"
        clauses.append(clause)
    return clauses
