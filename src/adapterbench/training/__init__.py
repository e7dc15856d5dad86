"""Training of one adapter over a frozen backbone."""
