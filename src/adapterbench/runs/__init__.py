"""Execution of stages: command line, records, resuming. Nothing here changes a result."""
