"""Per-image scores by frozen evaluators."""
