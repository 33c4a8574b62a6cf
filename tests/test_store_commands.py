"""The store as a user meets it: three commands, one line per error, results on stdout."""

import json
import re
import sys

import pytest
from atlases import make_comparison

from saelens_n2g import cli


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The entry point with arguments, as the shell would call it, in a folder with a run and nothing else."""
    make_comparison(tmp_path / "demo")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
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
