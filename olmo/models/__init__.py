"""Whole models: config, forward pass, sharding."""
