"""The `saelens-n2g` command. Exit codes: 0 done, 1 unexpected, 2 bad input, 3 damaged artefact, 4 unit without graph,
130 interrupted.

Imports here are light, so that `--help` answers at once; each command loads what it needs.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console

from saelens_n2g.cli import (  # noqa: F401  (they add their commands)
    causal,
    comparisons,
    dictionaries,
    imports,
    interpret,
    report,
    serve,
    store,
    study,
    units,
)
from saelens_n2g.cli.app import INTERRUPTED, app
from saelens_n2g.errors import InputError, N2GError

USAGE_ERROR: Any = typer.BadParameter.__base__
"""The parser's own error for wrong options. Typer brings its parser along and exports only the leaves of the tree."""


def main(arguments: Sequence[str] | None = None, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> NoReturn:
    """Entry point: errors that a user can mend are one line on stderr.

    arguments: those of the process if left out. defaults: by command and parameter, in the place of the command's own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with ending(debug="--debug" in given):
        left = [one for one in given if one != "--debug"]
        status = app(left, prog_name="saelens-n2g", standalone_mode=False, default_map=defaults)
        if status == INTERRUPTED:  # Typer turns Ctrl-C into this status
            raise KeyboardInterrupt
    sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def ending(*, debug: bool) -> Iterator[None]:
    """Ends the process with one line on stderr and the exit code of what is raised inside; with `debug` errors pass."""
    err = Console(stderr=True, soft_wrap=True)
    try:
        yield
    except N2GError as error:
        if debug:
            raise
        err.print(f"error: {' '.join(str(error).splitlines())}", markup=False, highlight=False)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        err.print("interrupted: run the same command again to go on", markup=False, highlight=False)
        sys.exit(INTERRUPTED)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except USAGE_ERROR as error:
        error.show()
        sys.exit(InputError.exit_code)
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split()) or "no message"
        err.print(f"unexpected {type(error).__name__}: {reason} (add --debug for the traceback)", markup=False)
        sys.exit(1)
