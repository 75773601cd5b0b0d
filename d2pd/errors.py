"""What a user can get wrong. The command line shows these as one line and exits with code 2."""


class UserError(Exception):
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


class RunInterrupted(Exception):
    """A run that was asked to stop, and did so with everything saved.

    Args:
        message: What stopped it, where it stands and how it goes on.
        exit_code: Of the command: 128 + the signal, or 75 for the time limit.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
