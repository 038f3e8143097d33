"""Which of pytest's ways to skip a test stand in a piece of code: a test that is not run holds nothing."""

import ast

WAYS = {"skip", "skipif", "xfail", "importorskip"}  # looked for in tests, used by none here


def skips(*nodes: ast.AST) -> set[str]:
    """Those that are used below the nodes, as `pytest.skip` or `pytest.mark.skip`."""
    attributes = (n for node in nodes for n in ast.walk(node) if isinstance(n, ast.Attribute))
    return {n.attr for n in attributes if n.attr in WAYS and ast.unparse(n.value) in ("pytest", "pytest.mark")}
