"""Serve a store, or a run that is brought into one first."""

from collections.abc import Sequence
from pathlib import Path

from saelens_n2g.errors import InputError
from saelens_n2g.progress import Reporter

STORE = "atlas.db"
"""Name of the store that a folder of a run gets."""


def serve(
    place: Path, reporter: Reporter, *, host: str, port: int, seconds: float, log: bool, browse: bool = False
) -> None:
    """Show the store at `place`; of a folder of a run, first bring what is new into the store `atlas.db` in it.

    Raises `InputError` and `ArtefactError` as `saelens_n2g.store.collect` and `saelens_n2g.server.serve` do.
    """
    from saelens_n2g.server.serve import serve as run

    store = _collected(place, reporter) if place.is_dir() else place

    def ready(address: str) -> None:
        print(f"{store} is shown at {address} (Ctrl-C ends it)", flush=True)
        if browse:
            import webbrowser

            webbrowser.open(address)

    run(store, host=host, port=port, limit=seconds, log=log, ready=ready)


def export(
    place: Path,
    out: Path,
    reporter: Reporter,
    *,
    model: str | None = None,
    layers: Sequence[str] = (),
    units: Sequence[str] = (),
) -> str:
    """Write pages of a store, or of a run's, into a folder; a line that says how many.

    Raises `InputError` and `ArtefactError` as `saelens_n2g.server.export` does.
    """
    from saelens_n2g.server.export import export as write

    store = _collected(place, reporter) if place.is_dir() else place
    with reporter.stage(f"pages of {store}", "units") as tick:
        found = write(store, out, model=model, layers=layers, units=units, tick=tick)
    return f"{out}: {found.units} units on {found.pages} pages, {out / 'index.html'} is the first"


def _collected(folder: Path, reporter: Reporter) -> Path:
    """The store in a folder, with the folder's run in it, or with the runs that lie in the folder."""
    from saelens_n2g.commands.store import collect

    store = folder / STORE
    runs = [folder] if _is_run(folder) else [one for one in sorted(folder.iterdir()) if _is_run(one)]
    if not runs and not store.is_file():
        raise InputError(f"folder {folder}", "a finished comparison, study or import, or folders of some", "none")
    for line in collect(runs, store, reporter):
        reporter.note(line)
    return store


def _is_run(folder: Path) -> bool:
    """Whether it is a finished comparison, study or import."""
    from saelens_n2g.jobs.artefacts import read_json
    from saelens_n2g.store.runs import VERSIONS

    results = folder / "report" / "results.json"
    if not results.is_file():
        return False
    found = read_json(results)
    return isinstance(found, dict) and found.get("format") in VERSIONS
