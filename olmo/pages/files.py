"""From a template to a page on disk."""

from pathlib import Path

from olmo.exceptions import OLMoEnvironmentError
from olmo.json_lines import write_whole


def template_environment(*packages: str):
    """Jinja2 environment that finds the templates of this package and of those named."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loaders = [PackageLoader(p, "templates") for p in ("olmo.pages", *packages)]
    return Environment(loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def save_page(path: Path, html: str) -> None:
    """Write a page, and its folder, or say why not. Who reads it meanwhile sees the old one or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, html)
    except OSError as err:
        raise OLMoEnvironmentError(f"cannot write {path}: {err.strerror or err}") from None
