"""Evaluation: tasks, the loop that asks, pure metrics over saved predictions, and the report."""
