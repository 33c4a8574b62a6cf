"""The store as a user meets it: four commands, one line per error, results on stdout."""

import json
import re
import sqlite3
import sys

import pytest
from atlases import make_comparison, tokenizer_json

from saelens_n2g import cli


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The entry point with arguments, as the shell would call it, in a folder with a run and nothing else."""
    make_comparison(tmp_path / "demo")
    tokenizer_json(tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, own: bool = False) -> tuple[int, str, str]:
        if arguments[0] == "collect" and "--tokenizer" not in arguments and not own:
            arguments = (*arguments, "--tokenizer", "tokenizer.json")
        monkeypatch.setattr(sys, "argv", ["saelens-n2g", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (int(end.value.code or 0), *capsys.readouterr())

    return call


def test_collect_search_verify(run):
    code, out, err = run("collect", "demo")
    assert (code, out) == (0, "demo: 10 units collected\nstore: atlas.db\n")
    assert "collect demo" in err
    assert run("collect", "demo", "--quiet") == (0, "demo: 0 units collected, 10 were there\nstore: atlas.db\n", "")
    assert run("verify") == (0, "atlas.db: 10 units, no damage\n", "")
    code, out, _ = run("search", "not any:weather and basis=sae", "--limit", "3", "--json")
    found = json.loads(out)
    assert found["total"] == 5
    assert [(u["basis"], u["layer"], u["neuron"]) for u in found["units"]] == [("sae", 1, i) for i in range(3)]
    code, out, _ = run("search", "any:the or any:york", "--limit", "2")
    *lines, last = out.splitlines()
    assert len(lines) == 2
    assert all(re.match(r"\d\.\d\d  F1 .{4}  toy (neurons|sae)/1/\d  ", line) for line in lines)
    assert re.fullmatch(r"\d+ units, 1 to 2 shown", last)
    assert run("search", "any:weather") == (0, "0 units\n", "")
    code, out, _ = run("search", 'any:<script> or any:"\\n"', "--limit", "1000")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", out)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("search", "the"), 2, "at position 1"),
        (("search", "any:the", "--store", "none.db"), 2, "nothing there"),
        (("search", "any:the", "--sort", "size"), 2, "sort"),
        (("search", "any:the", "--model", "other"), 2, "model 'other'"),
        (("verify", "--store", "demo/report/results.json"), 3, "results.json"),
        (("match", ""), 2, "text to match"),
        (("match", "a", "--store", "none.db"), 2, "nothing there"),
        (("match", "a", "--basis", "sea"), 2, "basis 'sea'"),
        (("match", "a", "--layer", "9"), 2, "layer 9"),
        (("match", "a", "--model", "other"), 2, "model 'other'"),
        (("match", "a", "--sort", "size"), 2, "sort"),
        (("collect", "demo", "--tokenizer", "demo/report/results.json"), 2, "tokenizer"),
        (("collect", "none"), 2, "none"),
        (("collect", "demo", "--rename", "sae"), 2, "option rename"),
        (("collect", "demo", "--store", "demo/report/results.json"), 3, "results.json"),
    ],
)
def test_errors_are_one_line(run, arguments, code, named):
    run("collect", "demo", "--quiet")
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert named in err


def test_damage_is_an_error(run, tmp_path):
    run("collect", "demo")
    path = tmp_path / "atlas.db"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff") + 30
    data[at] ^= 255
    path.write_bytes(data)
    code, out, err = run("verify")
    assert (code, out) == (3, "")
    assert "a store without damage" in err
    assert len(err.splitlines()) == 1


def test_names_in_the_store(run):
    run("collect", "demo", "--rename", "sae=mine", "--model", "other", "--no-similar")
    assert json.loads(run("search", "basis=mine", "--json")[1])["units"][0] == {
        "model": "other", "basis": "mine", "layer": 1, "neuron": 0, "strength": 0.0,
        "f1": json.loads(run("search", "basis=mine", "--json")[1])["units"][0]["f1"],
    }  # fmt: skip


def test_match(run):
    run("collect", "demo", "--quiet")
    code, out, _ = run("match", " the New York\n<script> in or of the Ärger: The or", "--limit", "2")
    *lines, last = out.splitlines()
    assert (code, len(lines)) == (0, 2)
    assert all(re.match(r"\d\.\d\d  toy (neurons|sae)/1/\d  .*\[.+\]  at \d+", line) for line in lines), lines
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", out)
    found = json.loads(run("match", " the New York\n<script> in or of the Ärger: The or", "--limit", "2", "--json")[1])
    total, graphs, tokens = found["total"], found["graphs"], len(found["tokens"])
    assert last == f"{total} of {graphs} units fire in {tokens} tokens, 1 to 2 shown"
    assert [f"{u['max_activation']:.2f}  toy {u['basis']}/{u['layer']}/{u['neuron']}" for u in found["units"]] == [
        " ".join(line.split(" ")[:4]) for line in lines
    ]
    some = json.loads(run("match", " the", "--basis", "sae", "--layer", "1", "--model", "toy", "--json")[1])
    assert some["graphs"] == 5
    assert {unit["basis"] for unit in some["units"]} <= {"sae"}
    assert re.fullmatch(r"0 of 10 units fire in \d tokens\n", run("match", "@@")[1])


def test_a_store_with_two_models_wants_to_know_which(run):
    run("collect", "demo", "--quiet")
    run("collect", "demo", "--model", "other", "--tokenizer", "none", "--quiet")
    assert run("match", " the") == (2, "", "error: option model: expected one of other, toy, found none\n")
    code, _, err = run("match", " the", "--model", "other")
    assert code == 2
    assert "--tokenizer" in err
    assert run("match", " the", "--model", "toy")[0] == 0


def test_layers_that_were_not_compiled_are_named(run, tmp_path):
    run("collect", "demo", "--quiet")
    connection = sqlite3.connect(tmp_path / "atlas.db")
    connection.execute("UPDATE programs SET graphs = 0, graphs_of = '', digest = x'', program = x'' WHERE layer_id = 1")
    connection.commit()
    connection.close()
    *_, said, last = run("match", " the New York")[1].splitlines()
    assert said == "not compiled, so not run: neurons at 1; `saelens-n2g collect` compiles them"
    assert " of 5 units " in last
    run("collect", "demo", "--quiet")
    assert " of 10 units " in run("match", " the New York")[1]


def test_a_tokenizer_that_cannot_be_loaded_is_a_line(run, monkeypatch):
    """Everything else is collected; one that was asked for is an error."""
    from saelens_n2g.errors import InputError
    from saelens_n2g.subject import Tokenizer

    def load(name, **_):
        raise InputError(f"model {name!r}", "one that is there", "no hub, " * 100)

    monkeypatch.setattr(Tokenizer, "load", load)
    code, out, _ = run("collect", "demo", own=True)
    said = out.splitlines()
    assert (code, len(said)) == (0, 3)
    begins = "toy: no text can be matched until --tokenizer says which tokenizer it has (model 'toy': no hub"
    assert said[1].startswith(begins)
    assert len(said[1]) < 240
    assert run("verify")[0] == 0
    assert run("collect", "demo", "--tokenizer", "else")[0] == 2
