"""Subset: a part of a store as a store of its own, for pages of that part alone."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from saelens_n2g.store.schema import INDEX_BITS, SERVICE_BITS, connect, speaking

_WHOLE = ("models", "bases", "sources", "services", "model_bodies")


def subset(source: Path, target: Path, *, layers: Sequence[int], units: Sequence[int] | None = None) -> None:
    """Copy some layers of the store `source`, by number, into a new one at `target`; with `units`, those alone.

    Numbers stay. It has what is shown of units: no posting lists and no programs, so it finds nothing by token and runs
    on no text. Similar units are those that are in it. Raises `InputError` and `ArtefactError`.
    """
    connect(source, write=False).close()  # says what is wrong with it
    connection = connect(target, write=True)
    try:
        with speaking(target):
            connection.execute("ATTACH DATABASE ? AS whole", (f"file:{quote(str(source.absolute()))}?mode=ro",))
            _copy(connection, layers, units)
            connection.execute("DETACH DATABASE whole")
            connection.execute("PRAGMA journal_mode = DELETE")
    finally:
        connection.close()


def _copy(connection: sqlite3.Connection, layers: Sequence[int], units: Sequence[int] | None) -> None:
    connection.execute("BEGIN")
    connection.execute("CREATE TEMP TABLE wanted (id INTEGER PRIMARY KEY)")
    if units is None:
        for layer in layers:
            first = (layer << INDEX_BITS, (layer + 1 << INDEX_BITS) - 1)
            connection.execute("INSERT INTO wanted SELECT id FROM whole.units WHERE id BETWEEN ? AND ?", first)
    else:
        connection.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(unit,) for unit in units])
        connection.execute("DELETE FROM wanted WHERE id NOT IN (SELECT id FROM whole.units)")
    connection.execute("CREATE TEMP TABLE places (id INTEGER PRIMARY KEY)")
    connection.executemany("INSERT OR IGNORE INTO places VALUES (?)", [(layer,) for layer in layers])
    for table in _WHOLE:
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM whole.{table}")
    chosen = {
        "layers": "id IN (SELECT id FROM places)",
        "layer_bodies": "layer_id IN (SELECT id FROM places)",
        "units": "id IN (SELECT id FROM wanted)",
        "unit_bodies": f"id IN (SELECT b.id FROM wanted w JOIN whole.unit_bodies b "
        f"ON b.id BETWEEN w.id << {SERVICE_BITS} AND (w.id << {SERVICE_BITS}) + {(1 << SERVICE_BITS) - 1})",
        "similar": "unit_id IN (SELECT id FROM wanted) AND other_id IN (SELECT id FROM wanted)",
    }
    for table, where in chosen.items():
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM whole.{table} WHERE {where}")
    for statement in (
        "DELETE FROM main.bases WHERE id NOT IN (SELECT basis_id FROM main.layers)",
        "DELETE FROM main.model_bodies WHERE model_id NOT IN (SELECT model_id FROM main.bases)",
        "DELETE FROM main.models WHERE id NOT IN (SELECT model_id FROM main.bases)",
        "DELETE FROM main.sources WHERE id NOT IN (SELECT source_id FROM main.units)",
    ):
        connection.execute(statement)
    connection.execute("COMMIT")
