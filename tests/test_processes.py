"""Commands in processes of their own."""

import sys

import pytest

from olmo.exceptions import OLMoError
from olmo.processes import check, cores, start


def test_a_failed_process_is_reported_by_its_own_sentence(tmp_path):
    log = tmp_path / "train.log"
    process = start([sys.executable, "-c", "print('hello'); print('error: no such thing'); print('bye'); raise SystemExit(3)"], log, 1)
    process.wait()
    with pytest.raises(OLMoError, match=r"x ended with status 3: no such thing \(all of it in .*train.log\)"):
        check(process, log, "x")


def test_cores_where_the_system_does_not_tell_them_per_process(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert cores() >= 1
