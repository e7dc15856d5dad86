"""From per-image scores to tables, plain words, figures and one page."""
