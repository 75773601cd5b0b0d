"""What a user can get wrong. The command line shows these as one line and exits with code 2."""


class _ToldInOneLine(Exception):
    """What a person needs no traceback for: IPython shows the message alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"d2pd: {self}"]


class UserError(_ToldInOneLine):
    """A mistake that the user can mend; the message says what, where and the way out."""


class ConfigError(UserError, ValueError):
    """A configuration key or value that cannot be used."""


class AnnotationError(UserError, ValueError):
    """A label file whose content cannot be used; the message names file and row."""


class ResultFileError(UserError, ValueError):
    """A file of detections whose content cannot be used; the message names file and line."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not where it was looked for."""


class WeightsError(UserError, ValueError):
    """A weights file that is broken, unsafe, or of another model."""


class DeviceError(UserError, RuntimeError):
    """A device that this machine does not have."""


class EngineError(UserError, ImportError):
    """The engine that was asked for is absent, broken or shadowed."""


class InstallError(UserError, RuntimeError):
    """A package that cannot be installed as it is needed."""


class ProcessLost(UserError, RuntimeError):
    """One of several processes of a run was killed, or another one has ended."""


class RunInterrupted(_ToldInOneLine):
    """A run that was asked to stop, and did so with everything saved.

    Args:
        message: What stopped it, where it stands and how it goes on.
        exit_code: Of the command: 128 + the signal, or 75 for the time limit.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.exit_code)
