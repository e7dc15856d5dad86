"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A condition that the user can mend; the message is one line: cause, then remedy."""


def one_line(error: object, limit: int = 300) -> str:
    """The text of an error, or any other, as one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."
