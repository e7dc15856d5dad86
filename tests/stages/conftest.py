"""What the stages `compare` and `figures` read: a project after stage `score`."""

from report.conftest import finished, project

__all__ = ["finished", "project"]
