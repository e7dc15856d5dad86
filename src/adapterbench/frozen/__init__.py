"""Loading and use of the frozen models."""
