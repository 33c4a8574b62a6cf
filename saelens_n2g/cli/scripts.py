"""What the runnable files in `analysis/` and `train/` have in common.

An analysis is a command with other defaults; a recipe is one with a file of settings beside it.

    python analysis/NAME.py [OPTIONS OF ITS COMMAND]
    python train/NAME.py [SETTINGS.json] [--out FOLDER] [--estimate]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from saelens_n2g.cli import ending, main


def analysis(doc: str | None, command: str, **defaults: Any) -> NoReturn:
    """Run a command with the options of this process; where it was not given one, `defaults` go before its own.

    doc: `__doc__` of the file, which `--help` shows above the options.
    """
    if "--help" in sys.argv[1:]:
        print(doc)
    main([command, *sys.argv[1:]], {command: defaults})


def recipe(doc: str | None, script: str, command: Callable[..., None]) -> None:
    """Read the command line of a recipe and its settings, and call `command`.

    doc, script: `__doc__` and `__file__` of the recipe. Settings are in the JSON file of the same name unless another
    is named. The command is called with `out`, `estimate`, `reporter` and the settings. Errors end the process as they
    do that of `saelens-n2g`.
    """
    place = Path(script)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="?", type=Path, default=place.with_suffix(".json"))
    parser.add_argument("--out", type=Path, default=Path("runs") / place.stem)
    parser.add_argument("--estimate", action="store_true", help="say what it will cost, and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    given = parser.parse_args()
    with ending(debug=given.debug):
        from saelens_n2g.commands.recipes import read_settings
        from saelens_n2g.progress import Reporter

        settings = read_settings(given.settings, command)
        command(out=given.out, estimate=given.estimate, reporter=Reporter(), **settings)
