"""What the tests of a report read: a project after stage `score`."""

from toy_results import finished, measured, params, project, variants, write_scores

__all__ = ["finished", "measured", "params", "project", "variants", "write_scores"]
