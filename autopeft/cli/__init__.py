"""The command line: one skin over ``autopeft.api`` and the reports; everything heavy is imported inside the commands.

Exit codes: 0 ok · 1 failure · 2 usage, configuration, space, task or data invalid · 3 not found · 4 database older or
newer · 5 infeasible or empty front · 6 verification failed or lossy export refused · 130 interrupted.
"""

from autopeft.cli.main import main

__all__ = ["main"]
