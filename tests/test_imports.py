"""The direction of imports inside the package, and no heavy or optional import at module top."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "olmo"

# Modules that import nothing of the project except each other.
LEAFS = {
    "exceptions",
    "host_memory",
    "json_lines",
    "config",
    "config_files",
    "batch",
    "budget",
    "distributed",
    "pixels",
    "pages",
    "processes",
    "provenance",
    "safetensors_files",
    "version",
    "weights",
}
# What each part may import besides the leafs and itself. Arrows point down: nothing here may lead back up.
ALLOWED = {
    "tokenizer": set(),
    "nn": {"tokenizer"},  # the config of the decoder holds the block that names its tokenizer
    "preprocessing": {"tokenizer"},
    "data": {"preprocessing", "tokenizer"},
    "models": {"nn", "preprocessing", "tokenizer"},
    "model_configs": {"models", "nn", "preprocessing", "tokenizer"},
    "hf_model": {"models", "model_configs", "nn", "preprocessing", "tokenizer"},
    "checkpoints": {"hf_model", "models", "model_configs", "nn", "preprocessing", "tokenizer"},
    "convert": {"launch", "checkpoints", "hf_model", "models", "model_configs", "nn", "preprocessing", "tokenizer"},
    "launch": {"checkpoints"},  # what the programs share; the commands in train and eval use it
    "inference": {"models", "model_configs", "checkpoints", "hf_model", "preprocessing", "data", "nn", "tokenizer"},
    "train": {"launch", "models", "model_configs", "checkpoints", "data", "preprocessing", "nn", "tokenizer", "inference", "eval"},
    "data_commands": {"launch", "models", "data", "preprocessing", "tokenizer", "train"},
    "benchmark": {"launch", "hf_model", "models", "model_configs", "data", "inference", "preprocessing", "nn", "train"},
    "visualize": {"launch", "checkpoints", "data", "inference", "models", "nn", "preprocessing", "tokenizer", "train"},
    "plugins": {"eval", "checkpoints", "data", "inference"},
    "eval": {"launch", "models", "model_configs", "checkpoints", "data", "inference", "preprocessing", "nn", "tokenizer"},
}
# Slow to import, optional, or both: imported where they are used.
HEAVY = {
    "wandb",
    "tensorboard",
    "decord",
    "torchcodec",
    "torchvision",
    "flash_attn",
    "matplotlib",
    "transformers",
    "av",
    "PIL",
    "gradio",
    "lmms_eval",
    "scipy",
    "pycocotools",
    "trackeval",
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The first name below `olmo`: a sub-package or a module (`olmo/__init__.py` counts as the leaf `version`)."""
    name = path.relative_to(PACKAGE).parts[0]
    return "version" if name == "__init__.py" else name.removesuffix(".py")


def imported_modules(tree: ast.AST):
    """(line, dotted module) of every import statement, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this project"
            yield node.lineno, node.module
            if node.module == "olmo":
                yield from ((node.lineno, f"olmo.{alias.name}") for alias in node.names)


def top_level_modules(tree: ast.Module):
    """Imports that run when the module is imported: everything outside functions and type-checking blocks."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported_modules(node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def forbidden_imports(part: str, tree: ast.AST) -> list[str]:
    """Imports of `part` that point the wrong way."""
    allowed = LEAFS if part in LEAFS else LEAFS | ALLOWED[part] | {part}
    found = []
    for line, module in imported_modules(tree):
        names = module.split(".")
        if names[0] in {"launch_scripts", "scripts", "tests"} or (names[0] == "olmo" and len(names) > 1 and names[1] not in allowed):
            found.append(f"line {line}: {module}")
    return found


def test_every_part_has_its_rule():
    parts = {part_of(path) for path in SOURCES}
    assert parts <= LEAFS | set(ALLOWED), "a new part needs a line in ALLOWED"


def test_the_rule_itself_points_down():
    """No cycle among the parts: repeatedly taking away parts that import nothing left must take away all."""
    left = {part: set(targets) for part, targets in ALLOWED.items()}
    while free := [part for part, targets in left.items() if not targets & set(left)]:
        for part in free:
            del left[part]
    assert not left
    assert "train" not in ALLOWED["eval"] and "models" not in ALLOWED["nn"] and "models" not in ALLOWED["data"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    assert not forbidden_imports(part_of(path), ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_heavy_at_module_top(path):
    heavy = [f"line {line}: {module}" for line, module in top_level_modules(ast.parse(path.read_text())) if module.split(".")[0] in HEAVY]
    assert not heavy


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("nn", "from olmo.models.model import ModelBase"),
        ("data", "def f():\n    import olmo.models.molmo2.model"),
        ("eval", "from olmo import train"),
        ("budget", "from olmo.nn import flops"),
        ("train", "import launch_scripts.sft"),
    ],
)
def test_the_check_sees_a_wrong_import(part, source):
    assert forbidden_imports(part, ast.parse(source))


def test_the_check_sees_a_heavy_import():
    source = (
        "try:\n    import wandb\nexcept ImportError:\n    import decord\nclass A:\n    def f(self):\n        import av\n    import PIL\n"
    )
    assert sorted(module for _, module in top_level_modules(ast.parse(source))) == ["PIL", "decord", "wandb"]


def test_importing_everything_loads_nothing_heavy():
    """The real thing, in a fresh interpreter: every module imports alone, and none brings a heavy package along."""
    modules = [".".join(p.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__") for p in SOURCES]
    program = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\nprint(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
