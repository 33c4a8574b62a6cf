"""Published exemplars from the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saelens_n2g.commands.settings import config_of
from saelens_n2g.errors import InputError
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site


def import_files(
    files: Sequence[Path],
    out: Path,
    reporter: Reporter,
    *,
    site_kind: str | None = None,
    layer: int | None = None,
    indices: Sequence[int] = (),
    units: int | None = None,
    test_share: float = 0.5,
    unchecked: bool = False,
    dictionary: str | None = None,
    corpus: str | None = None,
    **options: Any,
) -> str:
    """Import files into the folder `out`; returns the report as Markdown. `options` are those of `config_of`.

    Raises `InputError` and `ArtefactError` as `saelens_n2g.imports.run.import_units` does.
    """
    from saelens_n2g.imports.config import ImportConfig
    from saelens_n2g.imports.run import import_units

    run = {**options, "corpus": corpus or "none"}
    if corpus is None:
        run["width"] = 2  # of no text; checked against the model's context all the same
    if dictionary is None:
        kind = site_kind or "mlp_post"
        run |= {"unit": f"{layer or 0}.{kind}/neurons/0"}
    else:
        folder, site = _place(dictionary, site_kind, layer)
        run |= {"bases": "sae", "layer": site.layer, "stream": site.kind, "dictionary": folder}
    config = ImportConfig(
        run=config_of(**run),
        layer=layer,
        indices=tuple(sorted(set(indices))),
        units=units,
        scored=corpus is not None,
        test_share=test_share,
        unchecked=unchecked,
    )
    report = import_units(files, config, out, reporter)
    return (report / "import.md").read_text() + f"\nwritten: {report}\n"


def _place(dictionary: str, kind: str | None, layer: int | None) -> tuple[Path, Site]:
    """The dictionary's folder, and its site by its metadata or by what was asked for."""
    from saelens_n2g.bases.foreign import load_dictionary
    from saelens_n2g.bases.hub import locate_dictionary

    folder = locate_dictionary(dictionary)
    hook = load_dictionary(folder).metadata.get("hook_name")
    if hook is not None:
        known = Site.parse(str(hook))
        return folder, Site(known.layer, kind or known.kind)  # type: ignore[arg-type]  # checked by Site
    if layer is None:
        raise InputError(f"layer of dictionary {dictionary}", "--layer, or metadata that names a hook", "neither")
    return folder, Site(layer, kind or "resid_post")  # type: ignore[arg-type]  # likewise
