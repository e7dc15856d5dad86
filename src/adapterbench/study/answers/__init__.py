"""What follows from the scores of all runs: intervals, tests, tables, figures, the report."""
