"""Errors that end a run, each with the exit code of design section 4. Their text is the whole screen a user sees."""


class NestlingError(Exception):
    """A failure that is understood: the message says the values seen, the rule, the reason and the remedy."""

    exit_code = 1


class Preempted(NestlingError):  # noqa: N818 - named by what happened, as in design 4
    """The machine was taken away after a save; the same command resumes."""

    exit_code = 75


class HostFault(NestlingError):  # noqa: N818 - named by what happened, as in design 4
    """A host, device, disk or network failed; the same command may pass elsewhere or later."""

    exit_code = 76


class DataFault(NestlingError):  # noqa: N818 - named by what happened, as in design 4
    """The data is not what was declared; running again gives the same."""

    exit_code = 77


class ConfigError(NestlingError, ValueError):
    """What the user asked for cannot be done as asked; nothing was started."""

    exit_code = 78
