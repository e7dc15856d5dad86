"""The study: many rows, seeds and lengths of training, and what follows from their scores."""
