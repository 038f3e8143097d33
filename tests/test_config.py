"""The override grammar, aliases and the errors of the configuration layer."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.config import BaseConfig, StrEnum, parse_overrides, read_yaml
from olmo.exceptions import OLMoCliError, OLMoConfigurationError, OLMoError


class Kind(StrEnum):
    plain = "plain"
    mlpx2 = "2mlp"


@dataclass
class VideoBlock(BaseConfig):
    max_frames: int = 8
    max_fps: list[float] | None = None
    topk: float | None = None


@dataclass
class PreprocessorBlock(BaseConfig):
    _key_aliases: ClassVar[dict[str, str]] = {"max_frames": "video.max_frames", "topk": "video.topk", "clip": "video"}

    video: VideoBlock = field(default_factory=VideoBlock)
    loss_weighting: str | None = None


@dataclass
class LoggerBlock(BaseConfig):
    name: str | None = None
    tags: list[str] = field(default_factory=lambda: ["a"])


@dataclass
class RunConfig(BaseConfig):
    save_folder: str = "./"
    steps: int = 10
    rate: float = 0.5
    flag: bool = False
    kind: Kind = Kind.plain
    limit: int | str | None = None
    mm_preprocessor: PreprocessorBlock = field(default_factory=PreprocessorBlock)
    wandb: LoggerBlock | None = field(default_factory=LoggerBlock)
    loggers: list[LoggerBlock] = field(default_factory=lambda: [LoggerBlock("one"), LoggerBlock("two")])
    rates: dict[str, float] = field(default_factory=dict)


def run(*words: str) -> RunConfig:
    """What a command line makes of the defaults."""
    return RunConfig().with_overrides(parse_overrides(words))


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["--a.b=1"], ["a.b=1"]),
        (["a.b=1"], ["a.b=1"]),
        (["--a.b", "1"], ["a.b=1"]),
        (["--a", "-1"], ["a=-1"]),
        (["--a", "-.5e-3", "--b"], ["a=-.5e-3", "b=True"]),
        (["--save-overwrite"], ["save_overwrite=True"]),
        (["--flag", "--steps=2"], ["flag=True", "steps=2"]),
        (["--save-folder=/a-b/c--d"], ["save_folder=/a-b/c--d"]),
        (["--url=http://x/?a=b&c=d"], ["url=http://x/?a=b&c=d"]),
        (["--a=", "--b=x y"], ["a=", "b=x y"]),
        (["--tags=[a,b]", "--tags", "[c, d]"], ["tags=[a,b]", "tags=[c, d]"]),
        ([], []),
    ],
)
def test_command_line_words(words, overrides):
    assert parse_overrides(words) == overrides


@pytest.mark.parametrize("words", [["stray"], ["--a=1", "stray"], ["--a", "1", "2"], ["-5"]])
def test_stray_words_are_refused(words):
    with pytest.raises(OLMoCliError, match=f"stray word '{words[-1]}'"):
        parse_overrides(words)


NAME = st.from_regex(r"[a-z][a-z_]{0,8}(\.[a-z][a-z_]{0,8}){0,2}", fullmatch=True)
VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12)


@settings(max_examples=50)
@given(st.lists(st.tuples(NAME, VALUE), max_size=5))
def test_equals_form_keeps_every_value(pairs):
    """Whatever stands behind the first `=` reaches the override untouched."""
    assert parse_overrides([f"--{k}={v}" for k, v in pairs]) == [f"{k}={v}" for k, v in pairs]


@settings(max_examples=50)
@given(st.lists(st.tuples(NAME, VALUE.filter(lambda v: not v.startswith("--") and "=" not in v)), max_size=5))
def test_space_form_equals_equals_form(pairs):
    spaced = [word for k, v in pairs for word in (f"--{k}", v)]
    assert parse_overrides(spaced) == parse_overrides([f"--{k}={v}" for k, v in pairs])


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--steps=7"], "steps", 7),
        (["--steps", "-3"], "steps", -3),
        (["--rate=1e-5"], "rate", 1e-5),
        (["--rate", "-.25"], "rate", -0.25),
        (["--rate=3"], "rate", 3.0),
        (["--flag"], "flag", True),
        (["--flag=false"], "flag", False),
        (["--save_folder=a=b"], "save_folder", "a=b"),
        (["--save_folder='null'"], "save_folder", "null"),
        (['--save_folder="[x]"'], "save_folder", "[x]"),
        (["--save_folder='007'"], "save_folder", "007"),
        (["--save_folder='a: b'"], "save_folder", "a: b"),
        (["--limit=2e3T"], "limit", "2e3T"),
        (["--limit=2000"], "limit", 2000),
        (["--limit=null"], "limit", None),
        (["--kind=mlpx2"], "kind", Kind.mlpx2),
        (["--wandb=null"], "wandb", None),
        (["--wandb.tags=[a,b]"], "wandb.tags", ["a", "b"]),
        (["--wandb.tags=[]"], "wandb.tags", []),
        (["--mm_preprocessor.video.max_fps=[2]"], "mm_preprocessor.video.max_fps", [2.0]),
        (["--mm_preprocessor.video.max_fps", "null"], "mm_preprocessor.video.max_fps", None),
        (["--loggers.1.name=x"], "loggers.1.name", "x"),
        (["--rates.new_set=0.25"], "rates.new_set", 0.25),
        (["--rates={a: 1, b: 2}"], "rates", {"a": 1.0, "b": 2.0}),
        (["--steps=1", "--steps=2"], "steps", 2),
        (["--mm_preprocessor.loss_weighting="], "mm_preprocessor.loss_weighting", None),
    ],
)
def test_values_are_yaml_of_the_field_type(words, path, value):
    node: Any = run(*words)
    for name in path.split("."):
        node = node[int(name)] if isinstance(node, list) else node[name] if isinstance(node, dict) else getattr(node, name)
    assert node == value and type(node) is type(value)


def test_interpolation_in_an_override():
    """`${...}` is resolved against the whole config, as in a YAML file."""
    assert run("--save_folder=runs/${steps}", "--steps=3").save_folder == "runs/3"


def test_aliases_mean_the_same_as_nested_keys():
    """Published flat spelling, nested spelling, and an alias of a whole block."""
    flat = run("--mm_preprocessor.max_frames=64", "--mm_preprocessor.topk=0.5")
    nested = run("--mm_preprocessor.video.max_frames=64", "--mm_preprocessor.video.topk=0.5")
    block = run("--mm_preprocessor.clip.max_frames=64", "--mm_preprocessor.clip.topk=0.5")
    assert flat == nested == block
    assert flat.mm_preprocessor.video == VideoBlock(max_frames=64, topk=0.5)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("--stepz=1", ["unknown config key 'stepz'", "did you mean 'steps'?"]),
        ("--mm_preprocessor.video.max_frame=1", ["mm_preprocessor.video.max_frame", "did you mean 'mm_preprocessor.video.max_frames'?"]),
        ("--mm_preprocessor.max_framez=1", ["did you mean 'mm_preprocessor.max_frames'?"]),
        ("--loggers.0.nam=x", ["did you mean 'loggers.0.name'?"]),
        ("--qqq=1", ["unknown config key 'qqq'", "known keys here:", "save_folder"]),
        ("--steps.x=1", ["'steps' is a value, not a block"]),
        ("--loggers.2.name=x", ["'2' is not an index of a list of 2"]),
        ("--loggers.first.name=x", ["'first' is not an index"]),
        ("--steps=abc", ["--steps=abc", "Integer"]),
        ("--steps=1.5", ["--steps=1.5", "Integer"]),
        ("--steps=null", ["--steps=null", "not Optional"]),
        ("--flag=maybe", ["--flag=maybe", "bool"]),
        ("--kind=2mlps", ["--kind=2mlps", "mlpx2"]),
        ("--wandb.tags=a", ["--wandb.tags=a"]),
        ("--rate=[1]", ["--rate=[1]"]),
        ("--rate=[1", ["--rate=[1"]),
        ("--save_folder=${nothing}", ["nothing"]),
    ],
)
def test_a_wrong_override_is_one_line_that_names_the_key(word, parts):
    with pytest.raises(OLMoConfigurationError) as caught:
        run(word)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_null_section_cannot_be_set():
    with pytest.raises(OLMoConfigurationError, match=r"cannot set 'wandb.name': 'wandb' is null"):
        run("--wandb=null", "--wandb.name=x")


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"stepz": 1}, ["'stepz'", "'steps'"]),
        ({"mm_preprocessor": {"video": {"max_frame": 1}}}, ["'mm_preprocessor.video.max_frame'", "'mm_preprocessor.video.max_frames'"]),
        ({"wandb": {"nam": "x"}}, ["'wandb.nam'", "'wandb.name'"]),
        ({"steps": "many"}, ["steps", "many"]),
        ({"mm_preprocessor": {"video": {"max_frames": "many"}}}, ["mm_preprocessor.video.max_frames", "many"]),
        ({"loggers": [{"nam": "x"}]}, ["nam"]),
    ],
)
def test_a_wrong_mapping_is_one_line_that_names_the_key(raw, parts):
    with pytest.raises(OLMoConfigurationError) as caught:
        RunConfig.from_dict(raw)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_yaml_round_trip(tmp_path):
    config = run("--kind=mlpx2", "--rates={a: 0.5}", "--wandb=null", "--mm_preprocessor.topk=0.3", "--limit=5ep")
    config.save(tmp_path / "config.yaml")
    assert RunConfig.load(tmp_path / "config.yaml") == config
    assert yaml.safe_load(config.to_yaml())["kind"] == "mlpx2"  # the member's name, as in published files
    block = PreprocessorBlock.from_dict(read_yaml(tmp_path / "config.yaml")["mm_preprocessor"], ["max_frames=3"])
    assert block.video == VideoBlock(max_frames=3, topk=0.3)


def test_missing_malformed_and_partial_files(tmp_path):
    broken, other, fine = (tmp_path / name for name in ("broken.yaml", "list.yaml", "fine.yaml"))
    broken.write_text("a: [1\nb: 2")
    other.write_text("- 1\n- 2\n")
    fine.write_text("steps: 3\n")
    for path, part in (
        (tmp_path / "none.yaml", "there is no config file"),
        (broken, "is not valid YAML"),
        (other, "must hold a mapping"),
    ):
        with pytest.raises(OLMoError, match=part) as caught:
            RunConfig.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert RunConfig.load(fine, ["rate=2"]) == RunConfig(steps=3, rate=2.0)


def test_overrides_leave_the_original_alone_and_keep_run_time_types():
    @dataclass
    class BigVideo(VideoBlock):
        extra: int = 0

    config = RunConfig(mm_preprocessor=PreprocessorBlock(video=BigVideo()))
    changed = config.with_overrides(["mm_preprocessor.video.extra=5", "mm_preprocessor.max_frames=2"])
    assert changed.mm_preprocessor.video == BigVideo(max_frames=2, extra=5)
    assert config.mm_preprocessor.video == BigVideo()


def test_attribute_typos_fail():
    with pytest.raises(AttributeError, match="no field 'step'; did you mean 'steps'"):
        RunConfig().step = 3
