"""Rules of the house that no single module can check: sizes, words, docstrings of config fields."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.skips import skips

REPO = Path(__file__).resolve().parents[1]
# The six files a reader opens to understand the pruning; the README links them.
STTS_FILES = [
    "olmo/nn/temporal_image_vit.py",
    "olmo/nn/token_packing.py",
    "olmo/nn/temporal_vision_backbone.py",
    "olmo/models/temporal_video_olmo/model.py",
    "olmo/models/temporal_video_olmo/compaction.py",
    "olmo/nn/attention.py",
]
# What they share, split off so that each file has one idea.
STTS_COMPANIONS = ["olmo/nn/pruning_plan.py", "olmo/nn/pruning_methods.py", "olmo/nn/token_merging.py"]
# Words that point outside the project or to unfinished work. Spelled in pieces so that this file passes its own test.
FORBIDDEN = {
    "a path of somebody's machine": re.compile("/wo" + r"rk/|/ro" + r"ot/|/ho" + r"me/\w"),
    "unfinished work": re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
    "an issue number": re.compile(r"\bissue " + r"#?\d+|\bissues? show\b|\((closes |fixes )?#\d+\)", re.I),
}


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would add (in an unpacked archive without git: all files outside hidden folders)."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns], cwd=REPO, capture_output=True, text=True)
    if done.returncode == 0:
        return sorted(p for line in done.stdout.splitlines() if (p := REPO / line).is_file())
    return sorted(p for pattern in patterns for p in REPO.rglob(pattern) if not any(x.startswith(".") for x in p.relative_to(REPO).parts))


PYTHON = tracked("*.py")
SOURCES = [p for p in PYTHON if p.relative_to(REPO).parts[0] in {"olmo", "launch_scripts", "scripts"}]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_file_is_over_800_lines():
    assert {str(p.relative_to(REPO)): n for p in PYTHON if (n := lines(p)) > 800} == {}


def test_the_median_source_file_is_short():
    sizes = sorted(lines(p) for p in SOURCES)
    assert sizes[len(sizes) // 2] < 250


def test_the_files_of_the_pruning_stay_readable():
    """The six files, and even with their companions."""
    sizes = {name: lines(REPO / name) for name in [*STTS_FILES, *STTS_COMPANIONS]}
    assert sum(sizes.values()) < 1500, sizes


def test_the_trainer_stays_small():
    """A core, and callbacks that each have one idea."""
    sizes = {p.relative_to(REPO): lines(p) for p in SOURCES if p.is_relative_to(REPO / "olmo/train")}
    assert {str(p): n for p, n in sizes.items() if n >= (300 if "callbacks" in p.parts else 500)} == {}
    assert sizes[Path("olmo/train/trainer.py")] < 200


TEXT = [p for p in tracked("*.py", "*.md", "*.yaml", "*.toml", "*.txt", "*.in", "*.j2", "Makefile", ".ci/run", "LICENSE")]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_project_speaks_of_itself(what):
    found = []
    for path in TEXT:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if FORBIDDEN[what].search(line):
                found.append(f"{path.relative_to(REPO)}:{number}: {line.strip()[:100]}")
    assert not found


def config_classes(tree: ast.AST) -> list[ast.ClassDef]:
    """Classes whose name ends in Config, or that inherit one, or the config base."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and (node.name.endswith("Config") or any("Config" in ast.unparse(base) for base in node.bases))
        and any("dataclass" in ast.unparse(d) for d in node.decorator_list)
    ]


def undocumented_fields(node: ast.ClassDef) -> list[str]:
    """Fields of a dataclass that are not followed by a docstring."""
    missing = []
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or "ClassVar" in ast.unparse(item.annotation):
            continue
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        if not documented:
            missing.append(ast.unparse(item.target))
    return missing


def test_every_config_field_has_a_docstring():
    missing = {
        f"{path.relative_to(REPO)}:{node.name}": fields
        for path in SOURCES
        for node in config_classes(ast.parse(path.read_text()))
        if (fields := undocumented_fields(node))
    }
    assert missing == {}


def test_the_check_sees_an_undocumented_field():
    source = '@dataclass\nclass AConfig(BaseConfig):\n    a: int = 1\n    """Why."""\n    b: int = 2\n    c: ClassVar[int] = 3\n'
    assert [undocumented_fields(node) for node in config_classes(ast.parse(source))] == [["b"]]


def test_every_module_says_what_it_is_for():
    bare = [str(p.relative_to(REPO)) for p in SOURCES if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))]
    assert bare == []


SKIPS = {
    "tests/inference/test_generation.py": "needs a GPU",
    "tests/scripts/test_gpu_check.py": "there is a GPU",
    "tests/train/test_soak.py": "reads /proc",
    "tests/models/test_compile_counts.py": "inductor needs a C++ compiler",
    "tests/data/test_loader.py": "the kernel's word about a parent's end is Linux's",
    "tests/goldens/__init__.py": "data of their own, not part of a checkout",
}
"""Where a test may be skipped, and why; nowhere else, since a test that is not run holds nothing."""


def test_no_test_is_skipped_in_silence():
    """Seen to fail with one more skip."""
    found = {str(p.relative_to(REPO)) for p in tracked("tests/*.py") if skips(ast.parse(p.read_text()))}
    assert found == {name for name, why in SKIPS.items() if why in (REPO / name).read_text()} == set(SKIPS)
