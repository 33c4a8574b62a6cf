"""The commands serve and export, as a user runs them."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from atlases import make_comparison, make_study

from saelens_n2g.store.reader import Store

COMMAND = [sys.executable, "-m", "saelens_n2g.cli"]
SECONDS = 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_comparison(folder / "demo")
    make_study(folder / "study")
    return folder


@contextmanager
def started(*arguments: str):
    """A server that answers, its address, and what it has said by then."""
    process = subprocess.Popen(
        [*COMMAND, "serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, (line, process.stderr.read())
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def asked(address: str):
    with urllib.request.urlopen(address, timeout=SECONDS) as answer:
        return answer.read()


def test_a_run_is_shown_with_one_command(runs):
    with started(str(runs / "demo"), "--port", "0") as (process, address):
        assert [one["name"] for one in json.loads(asked(f"{address}/api"))["models"]] == ["toy"]
        assert b"<title>" in asked(f"{address}/viz/toy/1-sae/0")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "GET" not in out + err, "no request is logged"
    with Store.open(runs / "demo" / "atlas.db") as store:
        assert len(store.listing("toy").units) == 10


def test_folders_of_runs_are_shown_together(runs, tmp_path):
    for name in ("demo", "study"):
        (tmp_path / name).symlink_to(runs / name)
    with started(str(tmp_path), "--port", "0", "--log") as (process, address):
        found = json.loads(asked(f"{address}/api/toy"))["data"]
        assert [basis["name"] for basis in found] == ["neurons", "sae", "tied-R2"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS)
    assert "GET /api/toy" in err, "asked for"


def test_a_request_that_runs_is_answered_before_the_end(runs):
    """Ctrl-C while a client is connected does not hang."""
    with started(str(runs / "demo"), "--port", "0") as (process, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=SECONDS)
    assert process.returncode == 0


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout, done.stderr


def test_errors_are_one_line(runs, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, said in (
            (("serve", str(tmp_path / "nothing")), "nothing there"),
            (("serve", str(tmp_path)), "a finished comparison, study or import"),
            (("serve", str(runs / "demo"), "--port", port), "in use"),
            (("serve", str(runs / "demo"), "--port", "70000"), "address"),
            (("serve", str(runs / "demo"), "--host", "no.such.host.invalid"), "address"),
            (("export", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")), "nothing there"),
        ):
            status, out, err = run(*arguments)
            (line,) = [one for one in err.splitlines() if one.startswith("error: ")]
            assert (status, out) == (2, ""), err
            assert said in line
            assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_export(runs, tmp_path):
    status, out, err = run("export", str(runs / "demo"), "--layer", "1-sae", "--out", str(tmp_path / "site"), "--quiet")
    assert status == 0, err
    assert out == f"{tmp_path / 'site'}: 5 units on 8 pages, {tmp_path / 'site' / 'index.html'} is the first\n"
    assert (tmp_path / "site" / "index.html").is_file()


def test_serving_loads_neither_torch_nor_transformers():
    code = "import sys, saelens_n2g.server.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "transformer_lens", "matplotlib", "wandb"} & set(loaded)
