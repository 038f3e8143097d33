"""The table of reliability names tests that are there, and that run on a CPU."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.reliability import PROMISES, markdown
from tests.skips import skips

TESTS = sorted({t for p in PROMISES for t in p.tests})
ABOUT_RESUMING = ("R1", "R2", "R3", "R4", "R24")


@cache
def functions(file: Path) -> tuple[dict[str, ast.FunctionDef], list[ast.stmt]]:
    """Functions of a module by name, and its other statements."""
    body = ast.parse(file.read_text()).body if file.is_file() else []
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    return found, [node for node in body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]


def with_fixtures(name: str, file: Path) -> list[ast.FunctionDef]:
    """A test and the fixtures that it asks for, of its own module and of the conftests above."""
    known: dict[str, ast.FunctionDef] = {}
    for folder in reversed(file.relative_to(REPO).parents):
        known |= functions(REPO / folder / "conftest.py")[0]
    known |= functions(file)[0]
    asked, found = [name], {}
    while asked:
        if (name := asked.pop()) in known and name not in found:
            found[name] = known[name]
            asked += [a.arg for a in known[name].args.args]
    return list(found.values())


def test_every_promise_is_there_once():
    assert [p.name for p in PROMISES] == [f"R{n}" for n in range(1, 25)]
    for promise in PROMISES:
        assert promise.tests or (promise.needs != "CPU" and promise.script), promise.name
        assert promise.script is None or (REPO / promise.script).is_file(), promise.script
        assert markdown().count(f"| {promise.name} |") == 1
    assert markdown() in (REPO / "docs/reliability.md").read_text(), "python -m tests.reliability --markdown prints the table of now"


@pytest.mark.parametrize("test", TESTS)
def test_named_tests_exist_and_are_not_skipped(test):
    """Seen to fail with a name that is not there, and for a test that needs a GPU."""
    file, _, name = test.partition("::")
    own, others = functions(REPO / file)
    assert name.startswith("test_") and name in own
    assert not skips(*others, *with_fixtures(name, REPO / file))


def test_skips_are_seen():
    """In a decorator, in a fixture, in the marks of a module."""
    file = REPO / "tests/inference/test_generation.py"
    marked = [name for name, node in functions(file)[0].items() if skips(node)]
    assert marked and skips(ast.parse("pytestmark = pytest.mark.skip")) == {"skip"}


@pytest.mark.parametrize("promise", [p for p in PROMISES if p.name in ABOUT_RESUMING], ids=lambda p: p.name)
def test_names_say_what_is_resumed(promise):
    assert any("resume" in t.partition("::")[2] for t in promise.tests)
