"""Readers of data sets by family; each module ends with the rows of its data sets."""
