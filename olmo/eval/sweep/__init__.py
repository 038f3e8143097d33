"""Sweeps: the same questions with more or fewer frames, and with more or fewer of their tokens."""
