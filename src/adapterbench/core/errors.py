"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A condition that the user can mend; the message is one line: cause, then remedy."""
