"""What the stages `compare` and `figures` read: a project after stage `score`."""

from toy_results import finished, project

__all__ = ["finished", "project"]
