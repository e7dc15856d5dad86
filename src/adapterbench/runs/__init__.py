"""How a stage runs: its command line, its record, its resumption. Nothing here changes a result."""
