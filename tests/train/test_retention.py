"""Which checkpoints stay: rules, and a long run of saves that fail now and then."""

import random

import pytest

from olmo.train.saving.retention import Saved, superseded

KEEP = Saved("step1", False), Saved("step2", False), Saved("step3", True)


def names(saved):
    return [s.name for s in saved]


@pytest.mark.parametrize(
    ("new", "keep", "going"),
    [
        (Saved("step4", False), -1, ["step3"]),
        (Saved("step4", False), 1, ["step3", "step1", "step2"]),
        (Saved("step4", False), 2, ["step3", "step1"]),
        (Saved("step4", True), 1, ["step3"]),
        (Saved("step3", False), 3, []),
        (Saved("step2", False), 1, ["step3", "step1"]),
    ],
)
def test_rules(new, keep, going):
    """The published code kept every ephemeral checkpoint when all permanent ones stay (keep -1). Seen to fail when an ephemeral
    save sends permanent ones away."""
    assert names(superseded(KEEP, new, keep)) == going


@pytest.mark.parametrize("keep", [-1, 1, 2, 3])
def test_there_is_a_whole_checkpoint_at_every_moment(keep):
    """Saves that fail delete nothing; at most one ephemeral and `keep` permanent ones are left."""
    rng, saved = random.Random(keep), []
    for step in range(1, 400):
        new = Saved(f"step{step}", rng.random() < 0.6)
        if rng.random() < 0.3:
            continue  # this save failed
        going = superseded(saved, new, keep)
        assert new not in going
        saved = [*(s for s in saved if s not in going), new]
        permanent = [s for s in saved if not s.ephemeral]
        assert len(saved) - len(permanent) <= 1 and saved[-1] == new
        assert keep == -1 or len(permanent) <= keep
        if new.ephemeral and permanent:
            assert len(saved) == len(permanent) + 1, "an ephemeral one never sends a permanent one away"
