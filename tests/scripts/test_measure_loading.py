"""The script that measures what loading costs, on a checkpoint of 60 million parameters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_loading_holds_no_second_copy(tmp_path):
    """Seen to fail for `sharded` with torch's own reader in place of ours, and for `unsharded` without `mmap=True`."""
    command = [sys.executable, str(REPO / "scripts/measure_loading.py"), "--parameters=6e7", f"--output={tmp_path / 'out.json'}"]
    done = subprocess.run([*command, f"--folder={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert len(results) == 6 and all(0.9 < r["times"] <= 1.2 and r["looks"] > 3 for r in results)
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
