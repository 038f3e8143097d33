"""What the tests of the tools share: small videos for steps of training, and log settings that do not leak."""

from tests.train.conftest import _log_settings, shapes, shapes_folder  # noqa: F401 (fixtures)
