"""The account of unreadable files: counted by cause, named once, and fatal only above the limit."""

import logging
import pickle

import pytest

from olmo.data.failures import BadVideoError, FailureLog, as_decoding_error
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError


def bad(name: str = "a.mp4", cause: str = "corrupt") -> BadVideoError:
    return BadVideoError(name, cause)


def test_counts_by_cause_and_names_each_file_once(caplog):
    failures = FailureLog(0.5)
    with caplog.at_level(logging.WARNING):
        failures.record(50, [bad("a.mp4"), bad("b.mp4", "empty"), bad("a.mp4")])
        failures.record(50, [OLMoDataError("example 7: all of its answers are empty")])
    assert failures.by_cause == {"corrupt": 2, "empty": 1, "example": 1}
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["skipped a.mp4", "skipped b.mp4", "skipped example 7"]
    assert failures.metrics()["data/bad_fraction"] == 0.04 and failures.metrics()["data/bad_empty"] == 1


@pytest.mark.parametrize(("reads", "allowed"), [(20, 1), (100, 3), (1000, 16), (10000, 120)])
def test_fails_above_the_limit_with_the_list(reads, allowed):
    """Seen to fail with `>=` instead of `>` for 100 reads."""
    failures = FailureLog(0.01)
    failures.record(reads, [bad(f"{i}.mp4") for i in range(allowed)])
    with pytest.raises(OLMoDataError, match=rf"{allowed + 1} of {reads} .*max_bad_fraction=0.01 allows: 0\.mp4") as caught:
        failures.record(0, [bad("last.mp4")])
    assert "\n" not in str(caught.value)


def test_early_failures_end_the_run_only_if_everything_fails():
    failures = FailureLog(0.01)
    failures.record(10, [bad(str(i)) for i in range(4)])
    everything = FailureLog(0.01)
    everything.record(4, [bad(str(i)) for i in range(4)])
    with pytest.raises(OLMoDataError, match="5 of 5"):
        everything.record(1, [bad("5")])


def test_counts_survive_a_restart():
    failures = FailureLog()
    failures.record(1000, [bad()])
    again = FailureLog()
    again.load_state_dict(failures.state_dict())
    assert again.metrics() == failures.metrics()


@pytest.mark.parametrize("err", [bad(cause="empty"), OLMoEnvironmentError("no memory"), MemoryError()])
def test_what_is_not_the_file_is_not_blamed_on_it(err):
    """Also behind the pipe of a decoding process, which once called all of them corrupt files."""
    crossed = pickle.loads(pickle.dumps(as_decoding_error(err, "a.mp4")))
    assert type(crossed) is type(err) and str(crossed) == str(err)


def test_what_a_library_raises_means_the_file():
    assert str(as_decoding_error(RuntimeError(), "a.mp4")) == "a.mp4: the file cannot be decoded (RuntimeError)"
