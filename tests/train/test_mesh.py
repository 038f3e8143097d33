"""What the ranks of a run may divide among themselves."""

import pytest
import torch

from olmo.exceptions import OLMoConfigurationError
from olmo.train.config import TrainConfig
from olmo.train.config_blocks import CompilerConfig
from olmo.train.mesh import ContextParallelConfig, ParallelismConfig
from olmo.train.sft import build_train_config, parse
from tests.train.command import CONFIG
from tests.train.tiny_run import model_config

HEADS = ("llm.n_heads=8", "llm.n_kv_heads=4")


def config(degree: int, *overrides: str) -> TrainConfig:
    parallelism = ParallelismConfig(context_parallel_config=ContextParallelConfig(degree))
    cfg = TrainConfig(model=model_config("temporal_video_olmo", *HEADS, *overrides), parallelism=parallelism, global_train_batch_size=4)
    return cfg.with_overrides(["data.sequence_length=512"])


def test_ranks_of_a_group_read_the_same_rows():
    cfg = config(2)
    cfg.validate(8)
    assert cfg.rows_per_rank(8) == 1
    assert [cfg.parallelism.data_rank(r) for r in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(OLMoConfigurationError, match="must be a multiple of the number of groups of ranks that share their sequences, 8"):
        cfg.validate(16)


@pytest.mark.parametrize(
    ("degree", "ranks", "overrides", "message"),
    [
        (8, 8, (), "degree=8 must divide model.llm.n_kv_heads=4"),
        (2, 3, (), "3 ranks cannot be divided"),
        (0, 2, (), "context_parallel_config.degree=0: must be at least 1"),
        (2, 2, ("vision_backbone.vit.packing=first_fit",), "refill_lone_frames=true, which make a frame depend on the others of its rank"),
        (2, 2, ("mm_preprocessor.video.slow_fast.mode=periodic",), "cannot go with model.mm_preprocessor.video.slow_fast.mode"),
    ],
)
def test_what_cannot_be_divided_is_refused(degree, ranks, overrides, message):
    with pytest.raises(OLMoConfigurationError, match=message):
        config(degree, *overrides).validate(ranks)


def test_rows_without_refill_can_be_shared():
    config(4, "vision_backbone.vit.packing=first_fit", "vision_backbone.vit.refill_lone_frames=false").validate(4)


def test_nothing_is_compiled_where_sequences_are_shared():
    """As published."""
    device = torch.device("cuda")
    for degree, compiled in ((1, True), (2, False)):
        cfg = config(degree)
        cfg.compile = CompilerConfig()
        assert (cfg.compiler(device) is not None) == compiled


def test_the_flag_sets_the_config():
    """And leaves alone what a file says where it is not given."""
    degrees = []
    for words in ((), ("--cp_degree=2",), ("--parallelism.context_parallel_config.degree=4",)):
        cfg = build_train_config(*parse([str(CONFIG), "moving_shapes", *words]))
        degrees.append(cfg.parallelism.context_parallel_config.degree)
    assert degrees == [1, 2, 4]
