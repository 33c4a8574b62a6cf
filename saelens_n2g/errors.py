"""The errors a user can meet, each with the exit code the command line gives it.

    N2GError                 anything this package refuses, one line
    |-- InputError      (2)  what was asked for cannot be: unknown model, missing file, layer out of range
    |-- ArtefactError   (3)  a file or folder on disk is truncated, damaged, foreign or unfinished
    `-- UnitError       (4)  this unit cannot be explained: it never fires, or too rarely

Every message names the thing, what was expected and what was found. Programmer errors stay `assert`.
"""


class N2GError(Exception):
    """Base of every error that a user can cause and mend. `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, thing: str, expected: str, found: str) -> None:
        super().__init__(f"{thing}: expected {expected}, found {found}")
        self.thing, self.expected, self.found = thing, expected, found


class InputError(N2GError, ValueError):
    """What was asked for cannot be had or makes no sense."""

    exit_code = 2


class ArtefactError(N2GError):
    """A stored artefact is missing, truncated, damaged or of another kind than expected."""

    exit_code = 3


class UnitError(N2GError):
    """A unit that cannot be explained, with the reason; a status in a report, never a zero."""

    exit_code = 4
