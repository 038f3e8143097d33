"""Typed configuration: dataclasses merged by omegaconf, with errors that name the key and the nearest valid one.

A config class is a dataclass that inherits `BaseConfig`; a docstring stands under each field. Command-line overrides
are `key=value` strings whose value is YAML. A class may declare other spellings of its keys in `_key_aliases`
(published flat names, names of older files), so that both spellings mean the same.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from olmo.exceptions import OLMoCliError, OLMoConfigurationError


class StrEnum(str, Enum):
    """A string enum whose `str()` is its value; YAML holds the member name, as in published configs."""

    def __str__(self) -> str:
        return self.value


@dataclass
class BaseConfig:
    """Base of every config block: loading, saving and overriding."""

    _key_aliases: ClassVar[dict[str, str]] = {}
    """Other spelling of a key -> dotted path below this block."""

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Migrate the keys of older files; called on the raw mapping before it is merged over the schema."""
        return raw

    @classmethod
    def from_dict(cls, raw: dict[str, Any], overrides: Sequence[str] = ()) -> Self:
        """Build from a plain mapping (missing keys take their defaults, unknown keys are an error)."""
        return build_config(cls, cls.update_legacy_settings(dict(raw)), overrides)

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file."""
        return cls.from_dict(read_yaml(path), overrides)

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """A copy with `key=value` overrides applied in order and type-checked."""
        return apply_overrides(self, overrides)

    def asdict(self) -> dict[str, Any]:
        return asdict(self)

    def to_yaml(self) -> str:
        """The resolved config as YAML text."""
        return OmegaConf.to_yaml(OmegaConf.structured(self), resolve=True)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.to_yaml())

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            raise AttributeError(f"{type(self).__name__} has no field '{name}'{_nearest(name, self.__dataclass_fields__)}")
        super().__setattr__(name, value)


def resolve(text: str) -> str:
    """`text` with references such as `${oc.env:NAME}` replaced, which a config made in Python still holds."""
    return OmegaConf.create([text])[0]


def refuse_set(raw: dict[str, Any], keys: Iterable[str], block: str) -> None:
    """Take keys of older files that nothing implements any more out of `raw`; one that asks for something is an error."""
    for key in keys:
        if raw.pop(key, None):
            raise OLMoConfigurationError(f"{block}.{key} of an older config is set, which is not supported")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Parse a YAML mapping, with one-sentence errors for a missing or malformed file."""
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise OLMoConfigurationError(f"there is no config file {path}") from None
    except yaml.YAMLError as err:
        raise OLMoConfigurationError(f"{path} is not valid YAML: {' '.join(str(err).split())}") from None
    if not isinstance(raw, dict):
        raise OLMoConfigurationError(f"{path} must hold a mapping of config keys, not {type(raw).__name__}")
    return raw


def build_config(cls: type, raw: dict[str, Any], overrides: Sequence[str] = ()):
    """Merge `raw` and `overrides` over the schema of dataclass `cls` and return an instance of it."""
    _check_keys(cls, raw, "")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), OmegaConf.create(raw))
    except OmegaConfBaseException as err:
        raise _readable(err, cls) from None
    return _finish(merged, cls, overrides)


def apply_overrides(cfg: Any, overrides: Sequence[str]):
    """Apply `key=value` overrides to a dataclass instance (the run-time type of every block is respected)."""
    try:
        conf = OmegaConf.structured(cfg)
    except OmegaConfBaseException as err:
        raise _readable(err, type(cfg)) from None
    return _finish(conf, type(cfg), overrides)


def _finish(conf: DictConfig, cls: type, overrides: Sequence[str]):
    for item in overrides:
        key, _, text = item.partition("=")
        key = _resolve_key(conf, key)
        try:
            conf.merge_with_dotlist([f"{key}={text}"])
        except (OmegaConfBaseException, yaml.YAMLError) as err:
            reason = str(err).splitlines()[0]
            raise OLMoConfigurationError(f"--{key}={text}: {reason}") from None
    try:
        return OmegaConf.to_object(conf)
    except OmegaConfBaseException as err:
        raise _readable(err, cls) from None


def _resolve_key(conf: Any, key: str) -> str:
    """Spell `key` as the schema does: follow aliases block by block and refuse what no block declares."""
    path: list[str] = []
    rest = key.split(".")
    node = conf
    while rest:
        block = OmegaConf.get_type(node) if OmegaConf.is_config(node) else None
        if is_dataclass(block):
            aliases = getattr(block, "_key_aliases", {})
            for n in range(len(rest), 0, -1):
                if ".".join(rest[:n]) in aliases and rest[0] not in block.__dataclass_fields__:
                    rest = aliases[".".join(rest[:n])].split(".") + rest[n:]
                    break
            if rest[0] not in block.__dataclass_fields__:
                known = [*(f.name for f in fields(block)), *aliases]
                raise OLMoConfigurationError(f"unknown config key '{key}'{_nearest(rest[0], known, path)}")
        name = rest.pop(0)
        path.append(name)
        if not rest:
            break
        if OmegaConf.is_list(node):
            try:
                node = node[int(name)]
            except (ValueError, IndexError):
                raise OLMoConfigurationError(f"'{key}': '{name}' is not an index of a list of {len(node)}") from None
        else:
            node = node._get_node(name) if is_dataclass(block) else (node.get(name) if OmegaConf.is_dict(node) else None)
        if node is None or (OmegaConf.is_config(node) and node._is_none()):
            if is_dataclass(block):
                raise OLMoConfigurationError(f"cannot set '{key}': '{'.'.join(path)}' is null")
            path.extend(rest)
            break
        if not OmegaConf.is_config(node):
            raise OLMoConfigurationError(f"unknown config key '{key}': '{'.'.join(path)}' is a value, not a block")
    return ".".join(path)


def _nearest(name: str, known: Iterable[str], path: Sequence[str] = ()) -> str:
    known = [k for k in known if not k.startswith("_")]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    prefix = "".join(f"{p}." for p in path)
    return f"; did you mean '{prefix}{close[0]}'?" if close else f"; known keys here: {', '.join(sorted(known))}"


def _config_class(hint: Any) -> type | None:
    """The config dataclass named by a type hint (looking through Optional and list), or None."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((found for arg in get_args(hint) if get_origin(hint) is not dict and (found := _config_class(arg))), None)


def _check_keys(cls: type, raw: dict[str, Any], prefix: str) -> None:
    """Refuse unknown keys of a YAML mapping before omegaconf sees it, naming the nearest valid key."""
    by_name = {f.name: f for f in fields(cls)}
    for key, value in raw.items():
        if key not in by_name:
            raise OLMoConfigurationError(f"unknown config key '{prefix}{key}'{_nearest(str(key), by_name, prefix.split('.')[:-1])}")
        block = _config_class(by_name[key].type)
        if block is None:
            continue
        blocks = {f"{prefix}{key}[{i}].": v for i, v in enumerate(value)} if isinstance(value, list) else {f"{prefix}{key}.": value}
        for start, inner in blocks.items():
            if isinstance(inner, dict):
                _check_keys(block, inner, start)


def _readable(err: OmegaConfBaseException, cls: type) -> OLMoConfigurationError:
    key = getattr(err, "full_key", None)
    reason = str(err).splitlines()[0]
    return OLMoConfigurationError(f"{cls.__name__}{f'.{key}' if key else ''}: {reason}")


_NUMBER = re.compile(r"^-?[.\d]")


def parse_overrides(tokens: Sequence[str]) -> list[str]:
    """Turn left-over command-line words into `key=value` overrides.

    `--a.b=v` and `a.b=v` are taken as they are; `--a.b v` takes the next word as the value when it does not start with
    `--`; a bare `--flag` means `flag=True`. Dashes inside the key become underscores, the value is untouched.
    """
    overrides = []
    words = list(tokens)
    while words:
        word = words.pop(0)
        if "=" not in word:
            if not word.startswith("-") or _NUMBER.match(word):
                raise OLMoCliError(f"stray word '{word}' on the command line; overrides are written --key=value or --key value")
            value = words.pop(0) if words and not words[0].startswith("--") else "True"
            word = f"{word}={value}"
        key, _, value = word.partition("=")
        overrides.append(f"{key.strip('-').replace('-', '_')}={value}")
    return overrides
