"""Exceptions whose messages are meant for the user, and formatting of values in them."""

from pathlib import Path

MAX_REPR = 80
"""Most characters of a bad value that an error shows."""


class UserError(Exception):
    """A condition that the user can correct; the message is one line: cause, then remedy."""


class InputError(UserError):
    """A generated file is missing, damaged or out of date, and must be generated again.

    A caller that knows which command generates `path` may name it as the remedy.
    """

    def __init__(self, cause: str, path: Path) -> None:
        super().__init__(f"{cause}: make it again")
        self.cause, self.path = cause, path

    def __reduce__(self) -> tuple[type, tuple[str, Path]]:
        """Pickle by the constructor's arguments; worker processes send errors so."""
        return type(self), (self.cause, self.path)


class DivergedError(UserError):
    """A training whose loss, gradient or weights are not finite."""


def one_line(error: object, limit: int = 300) -> str:
    """Text on one line, cut to `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def short_repr(value: object) -> str:
    """`repr` of a bad value on one line of at most `MAX_REPR` characters."""
    try:
        return one_line(repr(value), MAX_REPR)
    except (ValueError, RecursionError):  # Python prints no integer of thousands of digits
        return "a value too large to show"
