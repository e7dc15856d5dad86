"""What the stages `compare` and `figures` read: a project after stage `score`."""

from report.conftest import by_layer, finished, measured_project, project

__all__ = ["by_layer", "finished", "measured_project", "project"]
