"""Batches whose loss or gradient was not finite: keeping them, and running them again."""
