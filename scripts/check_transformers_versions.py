"""Run the tests of the Hugging Face formats with other versions of transformers: the oldest and the newest that have Molmo2.

    python scripts/check_transformers_versions.py
    python scripts/check_transformers_versions.py 5.21.0 --tests tests/oracles/test_transformers_molmo2.py

Each version goes into an environment of its own beside the packages of this one, which is removed afterwards; nothing here
is changed. Needs a package index.
"""

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = "5.20.1", "5.23.0"
TESTS = (
    "tests/oracles/test_transformers_molmo2.py",
    "tests/hf_model",
    "tests/convert/test_export.py",
    "tests/convert/test_remote_code.py",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", default=[OLDEST, NEWEST], help=f"versions of transformers ({OLDEST} {NEWEST})")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="test files or folders (those of the Hugging Face formats)")
    args = parser.parse_args()
    results = {version: check(version, args.tests) for version in args.versions}
    for version, line in results.items():
        print(f"transformers {version}: {line}")
    return 0 if all("passed" in line and "failed" not in line and "error" not in line for line in results.values()) else 1


def check(version: str, tests: list[str]) -> str:
    """The last line of pytest, or why it could not run."""
    with tempfile.TemporaryDirectory(prefix="transformers_") as place:
        python = environment(Path(place))
        installed = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"transformers=={version}"],
            capture_output=True,
            text=True,
        )
        found = subprocess.run([python, "-c", "import transformers; print(transformers.__version__)"], capture_output=True, text=True)
        if found.stdout.strip() != version:
            return f"cannot be installed: {(installed.stderr + found.stderr).strip()[-300:]}"
        print(f"-- transformers {version}", flush=True)
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-rf", "--timeout=1800", *tests]
        with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as run:
            lines = []
            for line in run.stdout:
                sys.stdout.write(line)
                lines.append(line.strip())
        summary = [line for line in lines if re.search(r"\d+ (passed|failed|error)", line)]
        return summary[-1].strip("= ") if summary else f"pytest ended with status {run.returncode}"


def environment(place: Path) -> str:
    """A virtual environment that also sees the packages of this one; returns its interpreter."""
    venv.create(place, with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = place / "lib" / version / "site-packages"
    (folder / "outer.pth").write_text(f"{sysconfig.get_path('purelib')}\n{REPO}\n")
    return str(place / "bin/python")


if __name__ == "__main__":
    sys.exit(main())
