"""The commands about data: fetching it, and finding out whether it is well."""
