"""The root of the error tree and the errors that a configuration, a budget or a backbone can raise.

``autopeft.errors`` extends and re-exports them. Every message says what was got, what was expected and what to do.
"""


class AutopeftError(Exception):
    """Any failure that AutoPEFT can explain; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigurationError(AutopeftError):
    """A configuration, search space or setting is not valid."""

    exit_code = 2


class BudgetError(AutopeftError):
    """A budget cannot be read, or no configuration of the space fits it."""

    exit_code = 5


class BackboneError(AutopeftError):
    """A backbone cannot be loaded, or its anatomy is not known."""

    exit_code = 2


def why_unread(error: Exception) -> str:
    """Why a file of settings could not be read, in one line: the system's reason, or where its YAML goes wrong."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', None) or 'wrong'} in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())
