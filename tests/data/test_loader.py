"""The training loader: the same batches for any number of workers, after any restart, and whatever files are broken."""

import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from olmo.batch import Batch, MultimodalType, VisualSegment
from olmo.data.background import in_background
from olmo.data.failures import BadVideoError
from olmo.data.loader import DataLoaderConfig, TrainLoader, build_train_loader
from olmo.data.mixtures import KwargsMixture, Member, WeightedDataset
from olmo.data.packer import PackingConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError, OLMoEnvironmentError
from olmo.preprocessing.collator import Collator
from olmo.preprocessing.example import ProcessedExample
from olmo.processes import child_environment

PATCH_ID = 900


@dataclass
class Numbers:
    """A data set whose examples are numbers; those of `broken` cannot be read."""

    name: str
    size: int
    broken: tuple[int, ...] = ()

    def __len__(self):
        return self.size

    def get(self, index, rng):
        if index in self.broken:
            raise BadVideoError(f"{self.name}/{index}.mp4", "corrupt")
        return {"index": index, "name": self.name}


class Preprocess:
    """Examples of varying length and frames, drawn from the example's own generator; half of the cells are pruned. The videos
    of `broken` cannot be decoded."""

    def __init__(self, max_frames=6, broken=()):
        self.max_frames, self.broken = max_frames, broken

    def __call__(self, raw, rng):
        if "error" in raw:
            raise OLMoConfigurationError(raw["error"])
        if f"{raw['name']}/{raw['index']}" in self.broken:
            raise BadVideoError(f"{raw['name']}/{raw['index']}.mp4", "timeout")
        frames, text = int(rng.integers(1, self.max_frames + 1)), int(rng.integers(4, 12))
        vision = np.full(4 * frames, PATCH_ID)
        tokens = np.concatenate([[raw["index"]], vision, rng.integers(0, 100, size=text)])
        n = len(tokens)
        loss = np.zeros(n, dtype=np.float32)
        loss[-3:] = raw.get("weight", 1.0)
        return ProcessedExample(
            input_tokens=tokens,
            target_tokens=np.roll(tokens, -1),
            loss_masks=loss,
            position_ids=np.arange(n),
            images=rng.integers(0, 255, size=(frames, 9, 12)).astype(np.uint8),
            token_pooling=np.arange(9 * frames).reshape(-1, 9)[:, :4].repeat(4, 0),
            segments=(VisualSegment(MultimodalType.VIDEO, frames, 4),),
            dropped_cells=2 * (frames - 1),
            metadata={"id": f"{raw['name']}/{raw['index']}"},
        )


def members(*sets):
    sets = sets or (Numbers("a", 23), Numbers("b", 7))
    return [Member(s.name, s, 1 / len(sets)) for s in sets]


def loader(*sets, packing=True, workers=0, rank=0, world_size=1, batch=2, preprocess=None, measuring=None, **settings):
    config = DataLoaderConfig(
        sequence_length=60,
        num_workers=workers,
        packing=PackingConfig(buffer_size=5, max_frames=12) if packing else None,
        **settings,
    )
    collator = Collator([PATCH_ID], pad_to=config.pad, seq_len=60)
    made = members(*sets)
    preprocess = preprocess or Preprocess()
    measuring = measuring or preprocess
    return TrainLoader(config, made, preprocess, collator, measuring, device_batch_size=batch, rank=rank, world_size=world_size)


def take(source, number):
    return [batch for _, batch in zip(range(number), source, strict=False)]


def ids(batches):
    """Example ids, row by row."""
    return [example for row in rows(batches) for example in row]


def rows(batches):
    """Example ids of every row."""
    return [tuple(m["id"] for m in row.get("examples", [row])) for batch in batches for row in batch.metadata]


def undecodable(*broken, **settings):
    """A loader that measures every example but cannot decode those of `broken`."""
    return loader(preprocess=Preprocess(broken=broken), measuring=Preprocess(), max_bad_fraction=0.5, **settings)


def assert_same(left: list[Batch], right: list[Batch]):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert a.layout == b.layout and a.metadata == b.metadata
        for name in Batch.TENSORS:
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None) and (x is None or torch.equal(x, y)), name


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(packing, workers):
    """Oracle: no workers. Seen to fail when the random generator is the worker's instead of the example's."""
    assert_same(take(loader(packing=packing, workers=workers), 6), take(loader(packing=packing), 6))


def test_resume_with_workers_leaves_the_random_state_alone():
    """Dropout is drawn from it, so it must be what the checkpoint says. Seen to fail when torch's loader draws its seed from it."""
    before = torch.get_rng_state()
    take(loader(workers=1), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("stop", [1, 4, 9, 17])
def test_resume_is_exact(packing, stop):
    """The state after k batches gives the batches k+1, ..., also across an epoch's end and with other workers. Seen to
    fail when the buffered places are not restored, or when the next place is saved one too early."""
    whole = take(loader(packing=packing), 22)
    first = loader(packing=packing)
    take(first, stop)
    state = first.state_dict()
    for workers in (0, 2) if stop == 4 else (0,):
        again = loader(packing=packing, workers=workers)
        again.load_state_dict(state)
        assert_same(take(again, 22 - stop), whole[stop:])
    # The first loader goes on as well, from what it handed out and not from what it prepared.
    assert_same(take(first, 2), whole[stop : stop + 2])


def test_state_with_workers_ignores_what_was_prepared_ahead():
    """The whole state, with the account of failures: seen to fail when an example is counted as soon as it is measured."""
    ahead, plain = undecodable("a/3", "b/1", workers=2), undecodable("a/3", "b/1")
    take(ahead, 3), take(plain, 3)
    assert ahead.state_dict() == plain.state_dict() != loader().state_dict()


def test_state_is_plain_data():
    """It is saved in files that load without unpickling code."""
    source = loader()
    take(source, 2)

    def check(value):
        assert type(value) in (int, str, bool, list, dict), value
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(inner)

    check(source.state_dict())


@pytest.mark.parametrize("packing", [True, False])
def test_ranks_share_the_stream_without_overlap(packing):
    """Two and three ranks: every example of an epoch is met once, whoever meets it."""
    for world_size in (2, 3):
        batches = [take(loader(Numbers("a", 600), packing=packing, rank=r, world_size=world_size), 5) for r in range(world_size)]
        met = [set(ids(b)) for b in batches]
        assert all(len(m) == len(ids(b)) for m, b in zip(met, batches, strict=True))
        assert len(set.union(*met)) == sum(map(len, met))


def test_without_packing_a_global_batch_is_the_same_for_any_number_of_ranks():
    one = take(loader(packing=False, batch=4), 6)
    two = [take(loader(packing=False, batch=2, rank=r, world_size=2), 6) for r in range(2)]
    for step in range(6):
        assert sorted(ids([one[step]])) == sorted(ids([two[0][step], two[1][step]]))
    state = loader(packing=False, batch=2, rank=1, world_size=2)
    take(state, 3)
    again = loader(packing=False, batch=4)
    again.load_state_dict(state.state_dict())
    assert_same(take(again, 3), one[3:])


@pytest.mark.parametrize("broken", [(), ("a/3", "b/5", "a/12")])
def test_packed_global_batches_hold_the_same_rows_for_any_number_of_ranks(broken):
    """Oracle: one rank. Seen to fail when each rank packs its own places, and when a clip that cannot be decoded is replaced after
    the plan was made."""
    one = take(undecodable(*broken, batch=8), 5)
    for world_size in (2, 4):
        ranks = [take(undecodable(*broken, batch=8 // world_size, rank=r, world_size=world_size), 5) for r in range(world_size)]
        for step, whole in enumerate(one):
            assert sorted(rows(r[step] for r in ranks)) == sorted(rows([whole])), (world_size, step)


def test_packed_resume_on_another_number_of_ranks_is_exact():
    """Two ranks with workers stop with examples waiting; one rank goes on with the rows that it would have had anyway. Seen to
    fail when the places that wait are left out, and when they come back in another order."""
    whole = take(undecodable("a/3", batch=4), 12)
    first = undecodable("a/3", batch=2, rank=1, world_size=2, workers=1)
    take(first, 5)
    assert len(first.state_dict()["waiting"]) > 1
    again = undecodable("a/3", batch=4)
    again.load_state_dict(first.state_dict())
    assert_same(take(again, 7), whole[5:])


def test_what_cannot_be_decoded_leaves_a_hole_and_moves_nothing(caplog):
    """Every other example stays in its row, now and after a resume; the clip is counted as often as it comes, and named once.
    Seen to fail when the examples behind a hole are counted to the wrong row."""
    plain = take(loader(), 20)
    holed = undecodable("a/3", "a/20", "b/2")
    with caplog.at_level(logging.WARNING):
        broken = take(holed, 20)
    expected = [tuple(e for e in row if e not in ("a/3", "a/20", "b/2")) for row in rows(plain)]
    assert rows(broken) == expected != rows(plain)
    assert holed.failures.by_cause == {"timeout": len(ids(plain)) - len(ids(broken))} and holed.failures.reads == len(ids(plain))
    assert caplog.text.count("skipped a/3.mp4: decoding takes longer") == 1
    again = undecodable("a/3", "a/20", "b/2")
    take(again, 7)
    resumed = undecodable("a/3", "a/20", "b/2", workers=2)
    resumed.load_state_dict(again.state_dict())
    assert_same(take(resumed, 13), broken[7:])


def test_a_row_without_examples_is_a_row_that_nothing_is_learned_from():
    first = rows(take(loader(), 1))[0]
    source = undecodable(*first)
    batch = take(source, 1)[0]
    assert rows([batch])[0] == () and batch.layout[0].num_tokens == 1 and batch.layout[0].num_loss_tokens == 0
    assert float(batch.loss_masks[0].clamp(min=0).sum()) == 0 < float(batch.loss_masks[1].sum())
    assert source.metrics()["data/empty_rows"] == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_example_that_is_not_as_long_as_measured_ends_the_run(workers):
    """A row that is planned with a wrong length may not fit. Seen to fail without the comparison."""
    source = loader(preprocess=Preprocess(max_frames=6), measuring=Preprocess(max_frames=5), workers=workers)
    with pytest.raises(OLMoDataError, match=r"has Lengths\(tokens=\d+, .* but was measured as Lengths\(tokens=\d+, .*did its file change"):
        take(source, 10)


def test_a_state_from_before_rows_were_planned_goes_on_at_its_place(caplog):
    """Two ranks had taken 9 places each. Seen to fail when the place is that of one rank."""
    source = loader()
    old = {"next": 9, "waiting": [3, 5], "reads": source.failures.state_dict(), "world_size": 2, "packed": True}
    with caplog.at_level(logging.WARNING):
        source.load_state_dict(old | {"data": source.state_dict()["data"]})
    assert len(caplog.records) == 1 and "every rank packed its own examples" in caplog.text
    expected = loader(start_index=18)
    assert ids(take(source, 4)) == ids(take(expected, 4))


def test_other_data_start_at_the_old_place(caplog):
    first = loader()
    take(first, 2)
    other = loader(Numbers("c", 50))
    with caplog.at_level(logging.WARNING):
        other.load_state_dict(first.state_dict())
    assert "the training data changed" in caplog.text and other.state_dict()["waiting"] == []
    assert other.state_dict()["place"] == first.state_dict()["place"] and len(take(other, 2)) == 2


def test_work_is_balanced_between_ranks_and_waiting_is_reported():
    source = loader(Numbers("a", 600), batch=8, rank=1, world_size=4)
    take(source, 3)
    metrics = source.metrics()
    assert 1 <= metrics["data/work_max_over_mean"] < 1.05 and 0 < metrics["data/longest_wait_rows"] < 20


def test_rows_keep_both_budgets_after_pruning():
    source = loader()
    for batch in take(source, 20):
        for row, tokens in zip(batch.layout, batch.input_ids, strict=True):
            dropped = sum(2 * (s.num_frames - 1) for s in row.segments)
            assert row.num_tokens - dropped <= 60 and row.num_frames <= 12
            assert row.num_tokens == int((tokens >= 0).sum())
    assert any(row.num_tokens > 60 for b in take(loader(), 20) for row in b.layout), "rows before pruning may be longer"
    metrics = source.metrics()
    assert metrics["data/examples_per_row"] > 1.5 and 0.5 < metrics["data/token_fill"] <= 1 and metrics["data/frame_fill"] <= 1


def test_broken_files_are_replaced_counted_and_named_once(caplog):
    """The next example of the same data set takes the place; all other places keep theirs."""
    good, broken = Numbers("a", 200), Numbers("a", 200, broken=(3, 77))
    with caplog.at_level(logging.WARNING):
        source = loader(broken, packing=False, max_bad_fraction=0.05)
        with_broken = ids(take(source, 200))
    without = ids(take(loader(good, packing=False), 200))
    order = without[:200]
    for place, (a, b) in enumerate(zip(without, with_broken, strict=True)):
        if a in ("a/3", "a/77"):
            assert place % 200 == 199 or b == order[order.index(a) + 1] or place >= 200
        else:
            assert a == b
    assert source.failures.by_cause == {"corrupt": 4}  # 400 places, two epochs
    named = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert sorted(n.split(":")[0] for n in named) == ["skipped a/3.mp4", "skipped a/77.mp4"]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_files_end_the_run(workers):
    source = loader(Numbers("a", 100, broken=tuple(range(0, 100, 10))), packing=False, workers=workers)
    with pytest.raises(
        OLMoDataError, match=r"examples could not be read, more than data.max_bad_fraction=0.01 allows: a/\d+.mp4: the file cannot"
    ):
        take(source, 100)


@pytest.mark.parametrize("workers", [0, 1])
def test_only_broken_files_end_the_run_soon(workers):
    source = loader(Numbers("a", 30, broken=tuple(range(30))), packing=False, workers=workers)
    with pytest.raises(OLMoDataError, match=r"\d+ of \d+ examples could not be read"):
        take(source, 1)


def test_resume_after_a_broken_file_is_exact():
    sets = (Numbers("a", 40, broken=(5, 6)), Numbers("b", 9))
    whole = take(loader(*sets, max_bad_fraction=0.5), 20)
    first = loader(*sets, max_bad_fraction=0.5)
    take(first, 11)
    again = loader(*sets, max_bad_fraction=0.5)
    again.load_state_dict(first.state_dict())
    assert_same(take(again, 9), whole[11:])


def test_what_fits_no_row_is_replaced_and_counted():
    """Videos of 16 frames in rows of 12: the published packer kept them in its buffer for ever."""
    source = loader(packing=True, preprocess=Preprocess(max_frames=16))
    for batch in take(source, 10):
        assert all(r.num_frames <= 12 for r in batch.layout)
    assert source.metrics()["data/rejected_too_many_frames"] > 0


def test_too_long_examples_are_replaced_and_counted():
    """30 frames take 62 tokens after pruning, more than a row of 60: they cannot be cut without cutting the picture."""
    source = loader(packing=False, preprocess=Preprocess(max_frames=40))
    for batch in take(source, 10):
        assert all(r.num_loss_tokens > 0 for r in batch.layout)
    assert source.metrics()["data/rejected_too_long"] > 0


class Misconfigured(Numbers):
    def get(self, index, rng):
        return {"error": "model.x is wrong"}


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_come_through_as_they_are(workers):
    """A worker's error arrives as one sentence, without the traceback that torch adds."""
    with pytest.raises(OLMoConfigurationError, match=r"^model\.x is wrong$"):
        take(loader(Misconfigured("a", 5), workers=workers), 1)


class Deadly(Numbers):
    def get(self, index, rng):
        os._exit(3)  # as the kernel does when memory runs out


def test_a_dead_worker_is_one_sentence():
    with pytest.raises(OLMoEnvironmentError, match="a data worker died .*lower data.num_workers"):
        take(loader(Deadly("a", 5), workers=1), 1)


def test_message_weight_and_start_index():
    heavy = loader(packing=False)
    heavy.source.members[0].message_weight = heavy.source.members[1].message_weight = 0.25
    assert {float(v) for v in take(heavy, 1)[0].loss_masks.unique()} <= {-1.0, 0.0, 0.25}
    assert ids(take(loader(packing=False, start_index=6), 3)) == ids(take(loader(packing=False), 6))[6:]


def test_seeds_change_order_and_content():
    a, b = take(loader(packing=False), 10), take(loader(packing=False, seed=3), 10)
    assert ids(a) != ids(b)
    assert_same(take(loader(packing=False), 10), a)


def test_every_way_of_naming_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    groups = [
        DataLoaderConfig(dataset="moving_shapes"),
        DataLoaderConfig(mixture={"moving_shapes": 0.3}),
        DataLoaderConfig(kwargs_mixture=[KwargsMixture(1, [WeightedDataset("moving_shapes")])]),
        DataLoaderConfig.from_dict({"root_size_mixture": [{"rate": 1, "mixture": {"moving_shapes": None}}]}),
    ]
    assert {tuple(d.dataset_name for g in c.groups() for d in g.datasets) for c in groups} == {("moving_shapes",)}
    with pytest.raises(OLMoConfigurationError, match="no training data: set data.dataset"):
        DataLoaderConfig().groups()
    with pytest.raises(OLMoDataError, match="tgif: not found"):
        build_train_loader(DataLoaderConfig(dataset="tgif", pad=None), Preprocess(), None, device_batch_size=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad": "to_max"}, "sequence_length must be set"),
        ({"pad": None, "packing": PackingConfig()}, "sequence_length must be set"),
        ({"pad": None, "prefetch_factor": 2}, "prefetch_factor needs data.num_workers"),
        ({"pad": None, "max_bad_fraction": 2}, "max_bad_fraction must be between 0 and 1"),
        ({"pad": None, "num_workers": -1}, "must not be negative"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(OLMoConfigurationError, match=message):
        DataLoaderConfig(**settings).check()


def test_config_reads_from_overrides():
    config = DataLoaderConfig().with_overrides(
        ["moving_shapes.num_train=50", "packing={buffer_size: 48, image_weight: 30}", "num_workers=4"]
    )
    assert config.moving_shapes.num_train == 50 and config.packing.buffer_size == 48 and config.num_workers == 4


def test_background_hands_over_items_and_errors():
    def items():
        yield 1
        yield 2
        raise OLMoDataError("three")

    source = in_background(items())
    assert [next(source), next(source)] == [1, 2]
    with pytest.raises(OLMoDataError, match="three"):
        next(source)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word about a parent's end is Linux's")  # nothing to test elsewhere
def test_workers_end_with_a_killed_parent():
    """A worker that waits for ever, as one whose queue is full does. Seen to fail (still there after 10 s) without the prctl call."""
    program = (
        "import os, time\n"
        "from olmo.data.workers import live_and_die_with_the_parent\n"
        "ready, tell = os.pipe()\n"
        "if worker := os.fork():\n"
        "    os.read(ready, 1)\n"
        "    print(worker, flush=True)\n"
        "else:\n"
        "    live_and_die_with_the_parent(0)\n"
        "    os.write(tell, b'.')\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=child_environment())
    worker = Path("/proc", parent.stdout.readline().decode().strip())
    assert worker.is_dir()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while worker.is_dir() and "Z" not in _state(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.is_dir() or "Z" in _state(worker)


def _state(process: Path) -> str:
    """The `State:` line of a process, empty when it is gone."""
    try:
        return next(line for line in (process / "status").read_text().splitlines() if line.startswith("State:"))
    except FileNotFoundError:
        return ""
