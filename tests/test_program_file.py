"""Stored graphs: whatever is saved comes back equal, and anything else is refused in one line."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from test_graph import PATHS, TEXT, graph_of

from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.graph import End, Graph
from saelens_n2g.graphs.program import Program
from saelens_n2g.graphs.program_file import FORMAT, load_graphs, save_graphs
from saelens_n2g.jobs.artefacts import canonical_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
LABELS = st.fixed_dictionaries(
    {
        "token_strings": st.sampled_from(("named", "other", "none")),
        "provenance": st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
        "counts": st.tuples(st.integers(1, 2**40), st.integers(0, 9)),
    }
)


def labelled(paths, labels, number) -> Graph:
    graph = graph_of(paths, provenance=labels["provenance"])
    graph.unit = f"1.mlp_post/neurons/{number}"
    graph.max_activation = 1 / (number + 3)
    for node, _, _ in graph.walk():
        if node.end is not None:
            node.end = End(node.end.activation, *labels["counts"])
    if labels["token_strings"] == "named":
        graph.name_tokens(lambda token: f" t{token}\n\ud800\ufffd"[: 2 + number])
    elif labels["token_strings"] == "other":
        graph.token_strings = {9: "nine", 1: '"'}
    return graph


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs") / "graphs.safetensors"


@given(st.lists(st.tuples(PATHS, LABELS), max_size=4), TEXT)
def test_graphs_and_program_come_back_as_they_were(path, cases, tokens):
    graphs = [labelled(paths, labels, number) for number, (paths, labels) in enumerate(cases)]
    save_graphs(path, graphs)
    stored = load_graphs(path)
    assert list(stored) == graphs
    assert stored.units == [graph.unit for graph in graphs]
    for again, graph in zip(stored, graphs, strict=True):
        assert json.dumps(again.to_dict(), sort_keys=True) == json.dumps(
            graph.to_dict(), sort_keys=True
        )  # 1 is not 1.0
    assert stored.program.matches(tokens) == Program.compile(graphs).matches(tokens)
    found, expected = stored.program.predict(tokens), Program.compile(graphs).predict(tokens)
    assert [column.tolist() for column in found] == [column.tolist() for column in expected]


def some() -> list[Graph]:
    graphs = []
    for number in range(6):
        graph = graph_of([((1, -1, 2), 0.5), ((-1000, -12, 3), 0.75), ((number % 4,), 1.0)])
        graph.unit = f"unit {number}"
        graph.provenance = {"subject": {"model": "m"}, "options": {"a": [1, 2.5]}, "exemplars": number}
        graph.name_tokens(lambda token: f"a long text of token {token}")
        graphs.append(graph)
    return graphs


def test_it_is_a_sequence(path):
    save_graphs(path, some())
    stored = load_graphs(path)
    assert len(stored) == 6
    assert stored[-1] == some()[5]
    assert stored[1:3] == some()[1:3]
    with pytest.raises(IndexError):
        stored[6]


def test_equal_graphs_give_equal_bytes(path):
    save_graphs(path, some())
    first = path.read_bytes()
    backwards = []
    for graph in some():
        again = Graph.from_dict(graph.to_dict())
        again.roots = dict(reversed(again.roots.items()))
        again.token_strings = dict(reversed(again.token_strings.items()))
        again.provenance = dict(reversed(again.provenance.items()))
        backwards.append(again)
    save_graphs(path, backwards)
    assert path.read_bytes() == first
    assert oct(path.stat().st_mode)[-3:] == "644"


def test_what_graphs_share_is_there_once(path):
    save_graphs(path, some())
    data = path.read_bytes()
    assert data.count(b"a long text of token 3") == 1
    assert data.count(b'"model"') == 1
    save_graphs(path, some() * 100)
    larger = path.read_bytes()
    assert len(larger) < len(canonical_json([graph.to_dict() for graph in some() * 100]).encode()) / 5


def test_provenance_may_be_changed_without_changing_that_of_others(path):
    save_graphs(path, some())
    stored = load_graphs(path)
    stored[0].provenance["options"]["a"].append(3)
    assert stored[0] == some()[0]


def test_what_could_not_be_read_is_not_written(path):
    path.unlink(missing_ok=True)
    graph = graph_of([((1,), 1.0)])
    graph.classes.append(())
    with pytest.raises(ValueError, match="a class is empty"):
        save_graphs(path, [graph])
    graph = graph_of([((1,), float("nan"))])
    with pytest.raises(ValueError, match="not finite"):
        save_graphs(path, [graph])
    assert not path.exists()


@pytest.mark.parametrize("value", [{1, 2}, float("nan")])
def test_provenance_that_is_no_json_is_refused(path, value):
    graph = graph_of([], provenance={"x": value})
    path.unlink(missing_ok=True)
    with pytest.raises((TypeError, ValueError), match="JSON"):
        save_graphs(path, [graph])
    assert not path.exists()


# --- damage -----------------------------------------------------------------------------------------------------


def refused(path, words) -> None:
    with pytest.raises(ArtefactError, match=words) as caught:
        load_graphs(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "none", "nothing there")
    refused(tmp_path, "safetensors")


@pytest.mark.parametrize("data", [b"", b"{}", b"\x80\x04\x95" * 9, json.dumps(some()[0].to_dict()).encode()])
def test_a_foreign_file_is_refused(tmp_path, data):
    (tmp_path / "foreign").write_bytes(data)
    refused(tmp_path / "foreign", "safetensors")


@pytest.mark.parametrize(
    "about", [None, {"format": "pt"}, {"about": "3"}, {"about": json.dumps({"format": FORMAT, "version": 2})}]
)
def test_another_format_is_refused(tmp_path, about):
    save_file({"element": np.zeros(3)}, tmp_path / "other", metadata=about)
    refused(tmp_path / "other", "version 1, found")


def test_any_part_cut_off_and_any_changed_byte_is_refused(tmp_path):
    path = tmp_path / "graphs"
    save_graphs(path, some())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        refused(path, "expected")
    for place in range(0, len(whole), 61):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        refused(path, "expected")


def forged(path, change) -> None:
    """The file with arrays or text changed and the checksum made to fit."""
    save_graphs(path, some())
    with safe_open(path, "np") as handle:
        arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    text = json.loads(arrays["json"].tobytes())
    change(arrays, text)
    if "json" in arrays:
        arrays["json"] = np.frombuffer(json.dumps(text).encode(), dtype=np.uint8)
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    save_file(
        arrays, path, metadata={"about": json.dumps({"format": FORMAT, "version": 1, "sha256": digest.hexdigest()})}
    )


def swap(name, place, value):
    def change(arrays, _):
        arrays[name] = arrays[name].astype(np.float64 if arrays[name].dtype == np.float64 else np.int64)
        arrays[name][place] = value

    return change


def test_a_forged_file_that_is_whole_loads(tmp_path):
    forged(tmp_path / "f", lambda *_: None)
    assert list(load_graphs(tmp_path / "f")) == some()


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, _: arrays.pop("json"),
        lambda arrays, _: arrays.pop("element"),
        lambda arrays, _: arrays.update(element=arrays["element"][:-1]),
        lambda arrays, _: arrays.update(end_seen=arrays["end_seen"][:-1]),
        lambda arrays, _: arrays.update(held_first=arrays["held_first"][:-1]),
        lambda arrays, _: arrays.update(max_activation=arrays["max_activation"][:-1]),
        lambda arrays, _: arrays.update(provenance_keys=arrays["provenance_keys"][:-1]),
        lambda arrays, _: arrays.update(element=arrays["element"][:, None]),
        swap("parent", -1, 1000),
        swap("parent", 0, 0),
        swap("element", -1, -2000),
        swap("element", 0, 2**40),
        swap("held_node", -1, 1000),
        swap("held_node", 0, 3),
        swap("class_token", 0, -1),
        swap("class_token", 0, 1),
        swap("class_first", 0, 1),
        swap("graph_class", 0, 1),
        swap("end_held", 1, 0),
        swap("end_activation", 0, np.nan),
        swap("held_importance", 0, np.inf),
        swap("max_activation", 0, np.nan),
        swap("provenance_keys", 0, 1),
        swap("provenance_value", 0, -1),
        lambda _, text: text.pop("units"),
        lambda _, text: text["units"].append("more"),
        lambda _, text: text.update(units=[1] * 6),
        lambda _, text: text.update(strings=[]),
        lambda _, text: text["strings"]["token"].pop(),
        lambda _, text: [text["strings"][column].pop() for column in ("token", "text")],
        lambda _, text: text["strings"].update(text=[1] * len(text["strings"]["text"])),
        lambda _, text: text.update(other_strings=3),
        lambda _, text: text["provenance"]["keys"][0].pop(),
        lambda _, text: text["provenance"].pop("values"),
    ],
)
def test_a_forged_file_is_refused(tmp_path, change):
    forged(tmp_path / "f", change)
    refused(tmp_path / "f", "whole graphs")
