"""The ``autopeft`` command: gathers the subcommands and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from autopeft.cli import (
    choosing,
    database,
    dispatching,
    exporting,
    finalizing,
    looking,
    probing,
    reporting,
    resuming,
    searching,
    spaces,
    training,
)
from autopeft.cli.console import fail, options
from autopeft.errors import AutopeftError

app = typer.Typer(
    name="autopeft",
    help="Search for per-layer PEFT configurations: a Pareto front of quality against trainable parameters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        from autopeft import __version__

        typer.echo(f"autopeft {__version__}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks of unexpected errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Search for per-layer PEFT configurations: a Pareto front of quality against trainable parameters."""
    options.verbose, options.quiet = verbose, quiet


searching.register(app)
resuming.register(app)
dispatching.register(app)
looking.register(app)
choosing.register(app)
reporting.register(app)
exporting.register(app)
training.register(app)
finalizing.register(app)
probing.register(app)
spaces.register(app)
database.register(app)


def main() -> None:
    """Runs the command line; every failure ends in one clear line and its exit code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy with a thread a core steals them from the workers
    gc.set_threshold(100_000, 20, 20)  # what is imported and read stays: collecting was a sixth of ``front``
    try:
        code = app(prog_name="autopeft", standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        sys.exit(130)
    except typer.TyperException as error:
        _usage(error)
    except AutopeftError as error:
        if options.verbose:
            traceback.print_exc()
        sys.exit(fail(str(error), error.exit_code))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        sys.exit(fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1))
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        sys.exit(fail(f"unexpected {type(error).__name__}: {error} (autopeft -v … shows where)", 1))
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: typer.TyperException) -> NoReturn:
    """Ends with one line for a usage error; the bare command shows its help instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.exit(2)
    sys.exit(fail(f"{error.format_message()} (autopeft --help lists the commands and their flags)", error.exit_code))
