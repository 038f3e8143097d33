"""Tables of the commands about data."""

from collections.abc import Sequence
from typing import Any

WIDE = 200
"""Columns of text where the output is no terminal and has no width of its own."""


def print_table(console: Any, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> None:
    """Print rows of text under a header; the first `left` columns are words, the others numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number < left else "right", overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    (console if console.is_terminal else Console(file=console.file, width=WIDE)).print(table)
