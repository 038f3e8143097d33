"""Paired measurements of what pruning saves: cases, arms, timing, files and their pictures."""
