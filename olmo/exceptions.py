"""Errors that are written for the user: one clear sentence, shown without a traceback unless `--debug` is given."""


class OLMoError(Exception):
    """Base of every error whose message is meant for the user of a command."""


class OLMoConfigurationError(OLMoError):
    """A config file, a config key or a combination of settings is wrong."""


class OLMoCliError(OLMoError):
    """A command line cannot be understood."""


class OLMoEnvironmentError(OLMoError):
    """Something outside the project is missing: a package, a device, a folder that can be written."""


class OLMoCheckpointError(OLMoError):
    """A checkpoint is missing, partial, or belongs to another model."""


class OLMoDataError(OLMoError):
    """A data set or a media file is missing or broken."""


class OLMoDataFileError(OLMoDataError):
    """A data file that the user wrote is wrong: a heading, then a line for each place in it (every rank finds the same)."""


class OLMoMissingDataError(OLMoDataFileError):
    """Data sets of a mixture are missing: a heading, a line for each, and what to do about them."""


def first_line(err: BaseException) -> str:
    """What another library's error says, short enough for a sentence of ours: its first line, or its type where it says nothing."""
    lines = str(err).strip().splitlines()
    return lines[0] if lines else type(err).__name__


def os_error(err: BaseException | None) -> OSError | None:
    """The operating system's error behind `err`, looking through the wrappers of torch's checkpoint library."""
    for _ in range(8):
        if err is None or isinstance(err, OSError):
            return err
        for failure, _ in getattr(err, "failures", {}).values():
            if (inner := os_error(failure)) is not None:
                return inner
        err = err.__cause__ or err.__context__
    return None


def missing_package(package: str, extra: str, purpose: str) -> OLMoEnvironmentError:
    """The one line that every optional import raises when its package is absent."""
    return OLMoEnvironmentError(
        f"{purpose} needs the package '{package}': pip install -c constraints.txt -e '.[{extra}]' in a checkout (or pip install {package})"
    )
