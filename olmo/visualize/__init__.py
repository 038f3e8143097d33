"""A page about a data set or mixture: what training sees of its examples, and how they fill rows."""
