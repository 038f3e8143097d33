"""Where the named configs are: `configs/` beside the package in a checkout, `olmo/configs/` when installed."""

from pathlib import Path

from olmo.exceptions import OLMoConfigurationError

_PACKAGE = Path(__file__).resolve().parent


def config_dir() -> Path:
    """The folder that holds the named configs and the packaged tokenizer."""
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (folder / "tiny.yaml").is_file():
            return folder
    raise OLMoConfigurationError(f"the folder of named configs is missing: neither {_PACKAGE}/configs nor {_PACKAGE.parent}/configs")


def config_names() -> list[str]:
    """Names that `find_config` accepts."""
    return sorted(p.stem for p in config_dir().glob("*.yaml"))


def find_config(name: str) -> Path:
    """The YAML file of a named config such as `tiny` or `stts_50`."""
    path = config_dir() / f"{name}.yaml"
    if "/" in name or not path.is_file():
        raise OLMoConfigurationError(f"there is no config named '{name}'; the names are {', '.join(config_names())}")
    return path
