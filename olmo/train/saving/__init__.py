"""Writing checkpoints of a run: what is in them, when they are whole, which of them stay."""
