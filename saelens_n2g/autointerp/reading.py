"""Units of finished runs, comparisons, studies and imports, as evidence: out of their graphs and exemplars, no model.

for basis, units in groups(Path("runs/demo")):
    evidence = units[3].load(Reading())
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saelens_n2g.autointerp.excerpts import Evidence, Excerpt, Kind, Side, sided
from saelens_n2g.errors import ArtefactError, InputError, N2GError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.jobs.artefacts import fingerprint, read_json, require
from saelens_n2g.sites import Site

FORMATS = {"saelens-n2g/comparison": 3, "saelens-n2g/study": 2, "saelens-n2g/import": 1}
"""Formats that are read, and their versions; their rooms are not asked, since they load PyTorch."""
EXEMPLARS, VERSION = "saelens-n2g/exemplars", 1
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(frozen=True)
class Reading:
    """How evidence is cut."""

    excerpts: int = 10
    """Test excerpts of a kind at most: strong ones, and random ones."""
    hold_back: float = 0.0
    """Share of the fit documents that is kept from explainers and tables, for calibration."""


@dataclass(frozen=True)
class Found:
    """A unit in a run's folder."""

    name: str
    run: str
    basis: str
    layer: int
    threshold: float
    graph: Path | None
    """None where none was fitted."""
    exemplars: Path

    def load(self, reading: Reading) -> Evidence:
        """The unit's evidence. Raises `ArtefactError` naming the file that is damaged or of another format, or has a
        document in fit and test."""
        value = read_json(self.exemplars)
        try:
            if (value["format"], value["version"]) != (EXEMPLARS, VERSION) or value["unit"] != self.name:
                raise ValueError(f"{value['format']} version {value['version']} of {value['unit']}")
            graph = None if self.graph is None else Graph.from_dict(read_json(self.graph))
            if graph is not None and graph.unit != self.name:
                raise ValueError(f"the graph of {graph.unit}")
            return Evidence(
                name=self.name,
                run=self.run,
                basis=self.basis,
                layer=self.layer,
                max_activation=float(value["max_activation"]),
                threshold=self.threshold,
                excerpts=tuple(_excerpts(value, reading)),
                graph=graph,
                checksum=_checksum(value, graph),
            )
        except N2GError as error:  # before those below: some of these are ValueErrors
            raise ArtefactError(f"file {self.exemplars}: {error.thing}", error.expected, error.found) from error
        except _DAMAGE as error:
            expected = f"exemplars and a graph of {self.name}"
            raise ArtefactError(f"file {self.exemplars}", expected, f"{type(error).__name__}: {error}") from error


def _checksum(value: Mapping[str, Any], graph: Graph | None) -> str:
    """Of everything that is read of a unit."""
    parts = [value[name] for name in ("max_activation", "fit", "test", "random")]
    return fingerprint([*parts, None if graph is None else {**graph.to_dict(), "provenance": None}])


def _excerpts(value: Mapping[str, Any], reading: Reading) -> list[Excerpt]:
    """Excerpts of an exemplar file. Raises `KeyError` and the like where it is not whole."""
    maximum = float(value["max_activation"])
    if not (np.isfinite(maximum) and maximum > 0):
        raise ValueError(f"a maximum of {maximum}")

    def some(which: str, kind: Kind, side: Side) -> list[Excerpt]:
        return [
            Excerpt(
                ids=tuple(int(t) for t in one["ids"]),
                strings=tuple(str(s) for s in one["tokens"]),
                activations=np.array(one["activations"], dtype=np.float64) / maximum,
                window=int(one["window"]),
                document=str(one["document"]),
                kind=kind,
                side=side,
            )
            for one in value[which]
        ]

    fit = sided(some("fit", "top", "fit"), reading.hold_back)
    test = [some("test", "top", "test"), some("random", "random", "test")]
    return [*fit, *(one for several in test for one in several[: reading.excerpts])]


def units_of(folder: Path) -> list[Found]:
    """Every unit of a finished run that has exemplars, by layer, basis and index.

    Raises `InputError` if the folder is no run, `ArtefactError` if it is unfinished, damaged, or without exemplars.
    """
    report = folder / "report"
    if not (report / "results.json").is_file():
        raise InputError(f"run {folder}", "the folder of a finished comparison, study or import", "none of them")
    require(report, "report")
    path = report / "results.json"
    result = read_json(path)
    kind = result.get("format") if isinstance(result, dict) else None
    if kind not in FORMATS or result.get("version") != FORMATS[kind]:
        known = ", ".join(f"{name!r} version {version}" for name, version in FORMATS.items())
        raise ArtefactError(f"file {path}", known, f"{kind!r}")
    try:
        found = _study(folder, result) if kind == "saelens-n2g/study" else _bases(folder, result)
    except _DAMAGE as error:
        raise ArtefactError(f"file {path}", "whole results", f"{type(error).__name__}: {error}") from error
    if not found:
        raise ArtefactError(f"run {folder}", "units with exemplars", "none")
    return sorted(found, key=lambda unit: (unit.layer, unit.basis, _index(unit.name)))


def _index(name: str) -> int:
    return int(name.rpartition("/")[2])


def _bases(folder: Path, result: Mapping[str, Any]) -> list[Found]:
    """Units of a comparison or an import."""
    report, threshold = folder / "report", _threshold(result["protocol"])
    found = []
    for basis in result["bases"]:
        layer = Site.parse(basis["site"]).layer
        for unit in basis["units"]:
            graph = report / unit["graph_file"]
            exemplars = report / "exemplars" / graph.name
            found.append(Found(unit["name"], folder.name, basis["name"], layer, threshold, graph, exemplars))
    return found


def _study(folder: Path, result: Mapping[str, Any]) -> list[Found]:
    """Units of a study, those without graph too; older studies kept no exemplars."""
    protocol, found = result["protocol"], []
    threshold = _threshold(protocol)
    for layer in protocol["layers"]:
        for name in protocol["names"]:
            place = folder / "layers" / f"{layer:02d}" / name
            require(place, "cell of a study")
            for unit in read_json(place / "cell.json")["units"]:
                stem = f"{unit['name'].replace('/', '_')}.json"
                graph = None if unit["failure"] else place / "graphs" / stem
                exemplars = place / "exemplars" / stem
                if exemplars.is_file():
                    found.append(Found(unit["name"], folder.name, name, int(layer), threshold, graph, exemplars))
    return found


def _threshold(protocol: Mapping[str, Any]) -> float:
    return float(protocol.get("threshold", protocol.get("firing_threshold", 0.5)))
