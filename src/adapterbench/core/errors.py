"""The exceptions that a user is meant to read, and values as they show them."""

from pathlib import Path

SHOWN = 80
"""Characters of a bad value that an error shows."""


class UserError(Exception):
    """A condition that the user can mend; the message is one line: cause, then remedy."""


class InputError(UserError):
    """A file that a program made is missing, damaged or out of date; made again, it will do.

    The message says so; who knows what makes `path` may name the command in its place.
    """

    def __init__(self, cause: str, path: Path) -> None:
        super().__init__(f"{cause}: make it again")
        self.cause, self.path = cause, path

    def __reduce__(self) -> tuple[type, tuple[str, Path]]:
        """As a worker process sends it to the one that waits for it."""
        return type(self), (self.cause, self.path)


def one_line(error: object, limit: int = 300) -> str:
    """The text of an error, or any other, as one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def short_repr(value: object) -> str:
    """A bad value as an error shows it."""
    try:
        return one_line(repr(value), SHOWN)
    except (ValueError, RecursionError):  # Python writes no integer of thousands of digits
        return "a value too large to show"
