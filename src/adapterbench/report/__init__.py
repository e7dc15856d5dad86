"""From per-image scores to tables, sentences, figures and one page."""
