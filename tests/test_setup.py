"""Set-up as a stranger meets it: what `make` says on an unfit machine, when it reuses its environment, what a wheel holds."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from olmo import __version__
from olmo.config_files import config_dir, config_names, find_config
from olmo.exceptions import OLMoConfigurationError

REPO = Path(__file__).resolve().parents[1]

# Stand-ins for an interpreter: each answers the three questions of the Makefile as such a machine would.
OLD = 'case "$2" in *version_info*) exit 1;; esac'
NO_VENV = 'case "$2" in *ensurepip*) echo "No module named ensurepip" >&2; exit 1;; esac'
FIT = "exit 0"


def make(*args: str, path: Path | None = None) -> subprocess.CompletedProcess:
    """Run make in the checkout, as if from a plain shell."""
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VENV", "TORCH_INDEX", "PYTHON"}}
    if path is not None:
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
    return subprocess.run(["make", *args], cwd=REPO, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def interpreter(folder: Path, body: str) -> Path:
    """A folder with a `python3` that does only what `body` says."""
    folder.mkdir(exist_ok=True)
    shim = folder / "python3"
    shim.write_text(f"#!/bin/sh\n{body}\nexit 0\n")
    shim.chmod(0o755)
    return folder


@pytest.mark.parametrize("target", ["demo", "test"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (OLD, "python3 is older than Python 3.11"),
        (NO_VENV, "python3 cannot make virtual environments: install its venv package (Debian: apt install python3-venv)"),
    ],
)
def test_an_unfit_python_stops_with_one_line(tmp_path, target, body, says):
    done = make(target, f"VENV={tmp_path}/venv", path=interpreter(tmp_path / "bin", body))
    assert done.returncode != 0
    assert says in done.stderr and len(done.stderr.splitlines()) == 1 and done.stdout == ""
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_stops_with_one_line(tmp_path):
    done = make("test", f"VENV={tmp_path}/venv", "PYTHON=python0.0")
    assert done.returncode != 0
    assert "there is no python0.0 here" in done.stderr and len(done.stderr.splitlines()) == 1


def planned(tmp_path: Path, *args: str) -> str:
    """What make would do."""
    done = make("-n", "test", f"VENV={tmp_path}/venv", *args, path=interpreter(tmp_path / "bin", FIT))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_is_made_once_and_remade_when_the_pins_change(tmp_path):
    marker = tmp_path / "venv" / ".ready"
    first = planned(tmp_path)
    assert "-m venv" in first and "install -c constraints.txt -e '.[test]'" in first and "--index-url" not in first
    assert """install --no-deps "$(grep '^dashscope==' constraints.txt)\"""" in first, "the vocabulary of the tests comes alone"
    marker.parent.mkdir()
    marker.write_text("\n")
    assert "install" not in planned(tmp_path) and "pytest" in planned(tmp_path)
    before = min((REPO / name).stat().st_mtime for name in ("constraints.txt", "setup.py")) - 10
    os.utime(marker, (before, before))
    assert "install -c constraints.txt" in planned(tmp_path)


def test_torch_from_another_index(tmp_path):
    plan = planned(tmp_path, "TORCH_INDEX=https://example.org/whl/cpu")
    torch, rest = plan.index("--index-url https://example.org/whl/cpu"), plan.index("-e '.[test]'")
    assert torch < rest, "torch comes first, so that the rest finds it installed"
    marker = tmp_path / "venv" / ".ready"
    marker.parent.mkdir()
    marker.write_text("https://example.org/whl/cpu\n")
    assert "install" not in planned(tmp_path, "TORCH_INDEX=https://example.org/whl/cpu")
    done = make("test", f"VENV={tmp_path}/venv", "TORCH_INDEX=https://example.org/other")
    assert done.returncode != 0 and "was made with torch from another index" in done.stderr and len(done.stderr.splitlines()) == 1


def test_pins_are_exact_and_those_the_makefile_greps_are_found():
    lines = [x for x in (REPO / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines)
    assert [line for line in lines if line.startswith("torch==")] == ["torch==2.13.0"]
    assert [line for line in lines if line.startswith("dashscope==")] == ["dashscope==2.0.2"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the files that git knows or would add."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPO, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (REPO / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_everything_the_package_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "olmo", "configs"], cwd=REPO, capture_output=True, text=True)
    wanted = {name if name.startswith("olmo/") else f"olmo/{name}" for name in listed.stdout.splitlines() if (REPO / name).is_file()}
    assert wanted - names == set()
    assert not [name for name in names if not name.startswith(("olmo/", "olmo-"))]
    assert any(name.endswith("LICENSE") for name in names)


def test_config_names_resolve_from_an_installed_wheel(wheel, tmp_path):
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True
    )
    program = (
        "from olmo.config_files import config_dir, config_names, find_config\n"
        "print(find_config('tiny'))\nprint(*config_names())\nprint(config_dir() / 'tiny_tokenizer')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    path, names, tokenizer = done.stdout.splitlines()
    assert path == str(target / "olmo" / "configs" / "tiny.yaml")
    assert names.split() == config_names()
    assert (Path(tokenizer) / "tokenizer.json").is_file()


def test_metadata_of_the_wheel(wheel):
    """Version, extras, and a pin for every direct dependency, core or extra, that the CPU set-up can install."""
    archive = zipfile.ZipFile(wheel)
    meta = HeaderParser().parsestr(archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode())
    assert meta["Name"] == "olmo" and meta["Version"] == __version__ and meta["Requires-Python"] == ">=3.11"
    assert {"gpu", "wandb", "tensorboard", "video", "data", "eval", "cloud", "test", "dev"} <= set(meta.get_all("Provides-Extra"))
    lines = [x for x in (REPO / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    for text in meta.get_all("Requires-Dist"):
        requirement = Requirement(text)
        if requirement.name == "flash-attn":
            continue  # built on the GPU machine against its own torch
        assert canonicalize_name(requirement.name) in pins, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_a_wrong_config_name_lists_the_right_ones():
    assert find_config("stts_50") == config_dir() / "stts_50.yaml"
    for name in ("stts_55", "../configs/tiny", ""):
        with pytest.raises(OLMoConfigurationError, match="there is no config named .*molmo2_4b, .*stts_50, .*tiny"):
            find_config(name)
