"""Per-image metrics by a network that judges."""
