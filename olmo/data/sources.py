"""Where the files of a data set come from, as data that the downloader and error messages share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hub:
    """Files of a data set on the Hugging Face hub."""

    repo: str
    """Owner/name."""
    patterns: tuple[str, ...] = ("*",)
    """Which of its files."""
    into: str = ""
    """Folder below that of the data set."""
    unpack: tuple[str, ...] = ()
    """Archives among them to unpack, as patterns."""
    gated: bool = False
    """Its conditions must be accepted on the hub first, and a token be in HF_TOKEN."""

    def __str__(self) -> str:
        return f"huggingface.co/datasets/{self.repo}" + (" (gated: accept its conditions, then set HF_TOKEN)" if self.gated else "")


@dataclass(frozen=True)
class Url:
    """One file on a web server."""

    url: str
    into: str = ""
    """Folder below that of the data set."""
    unpack: bool = False
    """It is an archive whose content is wanted."""
    sha256: str | None = None
    """Where the publisher states one."""

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class ByHand:
    """What only a person can fetch: behind a form, a licence or a log-in."""

    what: str
    """What it is, and on which page it is found."""
    into: str = ""
    """Where to put it, below the folder of the data set."""

    def __str__(self) -> str:
        return f"{self.what} (by hand" + (f", into {self.into}/)" if self.into else ")")


Source = Hub | Url | ByHand
