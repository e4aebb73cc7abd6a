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
