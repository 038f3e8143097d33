"""`TrainConfig`: published keys, limits, round trips."""

import pytest
import yaml

from olmo.config import _config_class
from olmo.exceptions import OLMoConfigurationError
from olmo.train.config import TrainConfig
from olmo.train.launcher import merge
from olmo.train.retired_keys import RETIRED
from tests.train.command import CONFIG


def config(**settings) -> TrainConfig:
    return TrainConfig.from_dict(merge(yaml.safe_load(CONFIG.read_text()), settings))


def test_round_trip(tmp_path):
    cfg = config(max_duration=9, wandb={"project": "p"})
    cfg.save(tmp_path / "x.yaml")
    assert TrainConfig.load(tmp_path / "x.yaml") == cfg


@pytest.mark.parametrize("value", [9, "9"])
def test_duration_is_steps(value):
    assert config(max_duration=value).max_steps == 9


def test_rows_per_rank():
    assert config(global_train_batch_size=12).rows_per_rank(4) == 3
    with pytest.raises(OLMoConfigurationError, match="must be a multiple of the number of ranks, 5"):
        config(global_train_batch_size=12).rows_per_rank(5)


LIMITS = [
    *("device_train_microbatch_size=0", "console_log_interval=0", "save_interval=0", "save_interval_ephemeral=0", "gen1_gc_interval=0"),
    *("wandb.log_interval=0", "tensorboard.log_interval=0", "speed_monitor.window_size=0", "save_num_checkpoints_to_keep=-2"),
]


@pytest.mark.parametrize("setting", LIMITS)
def test_limits(setting):
    """Unchecked, three of them are a division by zero in the middle of a run."""
    with pytest.raises(OLMoConfigurationError, match=f"{setting}: must be"):
        config(wandb={"project": "p"}, tensorboard={}).with_overrides([setting]).validate(1)


def test_null_switches_off():
    nothing = [f"{key}=null" for key in ("save_interval", "save_interval_ephemeral", "gen1_gc_interval", "wandb")]
    config().with_overrides(nothing).validate(1)


def test_model_is_needed():
    with pytest.raises(OLMoConfigurationError, match="the config has no block 'model'"):
        TrainConfig().validate(1)


def test_retired_keys_on_the_command_line(caplog):
    """Accepted with a line where they change nothing, refused where they would."""
    cfg = config()
    with caplog.at_level("INFO"):
        assert cfg.with_overrides(["eval_interval=7", "parallelism.tensor_parallel_config.degree=1", "seed=3"]).seed == 3
    assert caplog.text.count("has no effect here") == 2
    with pytest.raises(OLMoConfigurationError, match="wandb.log_artifacts=True is not offered, only false"):
        cfg.with_overrides(["wandb.log_artifacts=True"])
    with pytest.raises(OLMoConfigurationError, match="degree=8 is not offered"):
        cfg.with_overrides(["parallelism.tensor_parallel_config.degree=8"])


def test_no_retired_key_is_a_field():
    """A key cannot be both without effect and a setting."""
    for key in RETIRED:
        node, parts = TrainConfig, key.split(".")
        while len(parts) > 1 and parts[0] in node.__dataclass_fields__:
            node = _config_class(node.__dataclass_fields__[parts.pop(0)].type)
        assert parts[0] not in node.__dataclass_fields__, key


def test_wandb_block_can_be_removed():
    cfg = config(wandb={"project": "p"}).with_overrides(["wandb=null"])
    assert cfg.wandb is None
    with pytest.raises(OLMoConfigurationError, match="wandb"):
        cfg.with_overrides(["wandb.name=x"])
