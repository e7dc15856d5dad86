"""Validation errors of pydantic as clauses of a message."""

from collections.abc import Collection

from pydantic import ValidationError

from adapterbench.core.errors import short_repr

SENTENCES = {
    "missing": "{place} is missing",
    "extra_forbidden": "{place} is not a parameter",
    "value_error": "{place}: {message}",
    "json_invalid": "{place}: {message}",
}
"""Sentences by pydantic's type of an error."""
OTHER_SENTENCE = "{place} = {value}: {message}"


def problems(error: ValidationError, root: str = "", fields: Collection[str] = ()) -> list[str]:
    """One clause per invalid value.

    Args:
        error: raised by a model or a `TypeAdapter`.
        root: name of what was checked, such as `train`; empty for a whole file.
        fields: names of its fields, listed where an unknown one is given.
    """
    clauses = []
    for item in error.errors(include_url=False):
        place = ".".join(filter(None, (root, *map(str, item["loc"])))) or "content"
        sentence = SENTENCES.get(item["type"], OTHER_SENTENCE)
        clause = sentence.format(place=place, value=short_repr(item["input"]), message=item["msg"])
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1 and fields:
            clause += f" (known: {', '.join(sorted(fields))})"
        clauses.append(clause)
    return clauses
