"""What the frozen encoders compute, once."""
