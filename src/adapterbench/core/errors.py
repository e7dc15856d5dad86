"""The one exception that a user is meant to read, and values as it shows them."""

SHOWN = 80
"""Characters of a bad value that an error shows."""


class UserError(Exception):
    """A condition that the user can mend; the message is one line: cause, then remedy."""


def one_line(error: object, limit: int = 300) -> str:
    """The text of an error, or any other, as one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def shown(value: object) -> str:
    """A bad value as an error shows it."""
    try:
        return one_line(repr(value), SHOWN)
    except (ValueError, RecursionError):  # Python writes no integer of thousands of digits
        return "a value too large to show"
