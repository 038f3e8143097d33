"""A mixture of three million examples opens in seconds and in little memory, because nothing but its indices is touched."""

import json
import subprocess
import sys

import pytest

from olmo.processes import child_environment
from tests.data.open_large_mixture import DRAWS, EXAMPLES, SETS


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_million_examples(tmp_path):
    """The first process builds the indices; the second is every later start, and reads some thousand examples too.

    The memory is what the process grew by, mapped pages of the indices included, which all processes of a machine share.
    """
    names = [f"set_{n:02d}" for n in range(SETS)]
    for name in names:
        folder = tmp_path / "video_datasets" / name
        folder.mkdir(parents=True)
        (folder / "annotations.json").write_text("[]")

    def run() -> dict:
        command = [sys.executable, "-m", "tests.data.open_large_mixture", *names]
        done = subprocess.run(command, env=child_environment() | {"MOLMO_DATA_DIR": str(tmp_path)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    run()
    found = run()
    print(f"{found['examples']} examples of {SETS} sets, {DRAWS} read: {found['seconds']:.1f} s, {found['megabytes']:.0f} MB")
    assert found["examples"] == EXAMPLES // SETS * SETS
    assert found["seconds"] < 10 and found["megabytes"] < 1000
