"""What the API costs: CPU time per request beside a bare Starlette route that sends the same bytes; latency; memory.

    python benchmarks/serve.py                               # some minutes
    python benchmarks/serve.py --requests 20000 --json figures.json

Two processes behind uvicorn, alike but for the application: the package's, with a store of made-up units, and a
Starlette application whose one route returns a constant `Response` with the headers and the body of the package's first
answer. A third process asks over 64 connections that are kept alive, each as soon as it has its answer; the package is
asked for random units. CPU time is what the operating system says of the server's process, user and system, over a
round; rounds take turns, and the median is given. `plain` asks without Accept-Encoding, so that bodies are unpacked.

Then the long run: `--requests` requests of the small body, with the 50th and 99th percentile of the time that a client
waits, as long as 64 clients wait at once and while they do 1,000 requests a second in all, answers that are not 200,
and the server's memory at a tenth, at half and at the end.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from figures import end

from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, SourceFacts, UnitFacts
from saelens_n2g.store.writer import Writer

CONNECTIONS = 64
SIZES = {"18 kB": ("neuron2graph", 170), "400 kB": ("neuroscope", 17_000)}
"""Name -> service and how many nodes or tokens make a body of that size."""
ATLAS = """
import sys; from pathlib import Path; import uvicorn
from saelens_n2g.server.app import Atlas
uvicorn.run(Atlas(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning", access_log=False, loop=sys.argv[3])
"""
BARE = """
import sys, http.client; import uvicorn
from starlette.applications import Starlette; from starlette.responses import Response
from starlette.routing import Route
answers = {}
for path in sys.argv[4:]:
    for kind in ("gzip", "identity"):
        source = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
        source.request("GET", path, headers={"accept-encoding": kind})
        answer = source.getresponse(); body = answer.read()
        answers[path.split("/")[3], kind] = body, {n: v for n, v in answer.getheaders() if n not in ("date", "server")}
async def route(request):
    body, headers = answers[request.path_params["service"], request.headers["accept-encoding"]]
    return Response(body, headers=headers)
app = Starlette(routes=[Route("/api/m/{service}/{layer}/{unit}", route)])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False, loop=sys.argv[3])
"""


def fill(path: Path, units: int, large: int) -> None:
    """A store of one layer: every unit has the small body, the first `large` the large one."""
    draw = random.Random(0)
    words = [f" w{i}" for i in range(5000)]
    with Writer(path) as writer, writer.batch():
        source = writer.source(SourceFacts(checksum="made up", name="", kind="comparison", total=units))
        basis = writer.basis(
            writer.model(ModelFacts(name="m", n_layers=1, config={})),
            BasisFacts(name="neurons", kind="mlp_post", title="Neurons"),
        )
        layer = writer.layer(basis, LayerFacts(layer=0, width=units, identity=""))
        for index in range(units):
            nodes = [
                {"token": draw.choice(words), "importance": draw.random(), "depth": i % 4, "required": [i // 2]}
                for i in range(SIZES["18 kB"][1])
            ]
            bodies: dict[str, object] = {"neuron2graph": {"graph": {"graph": nodes, "subgraph_indices": [0]}}}
            bodies["similarity"] = {
                "similar": [{"layer": 0, "neuron": i, "similarity": draw.random()} for i in range(10)]
            }
            if index < large:
                n = SIZES["400 kB"][1] // 20
                texts = [
                    {
                        "tokens": draw.choices(words, k=n),
                        "activations": [round(draw.random(), 9) for _ in range(n)],
                    }
                    for _ in range(20)
                ]
                bodies["neuroscope"] = {"texts": texts}
            writer.unit(layer, source, UnitFacts(index=index, figures={}, bodies=bodies))


class Client(asyncio.Protocol):
    """A connection that asks again as soon as it has its answer."""

    def __init__(self, load: "Load") -> None:
        self.load, self.buffer, self.expected = load, bytearray(), -1
        self.started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """The next request, or none if there were enough."""
        if not self.load.left:
            self.transport.close()
            return
        self.load.left -= 1
        self.started = time.perf_counter()
        self.transport.write(self.load.request())

    def data_received(self, data: bytes) -> None:
        """Wait for the whole answer."""
        self.buffer += data
        if self.expected < 0 and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end]).lower()
            if not head.startswith(b"http/1.1 200"):
                self.load.errors += 1
            self.expected = end + 4 + int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if 0 <= self.expected <= len(self.buffer):
            self.load.waited.append(time.perf_counter() - self.started)
            self.buffer.clear()
            self.expected = -1
            if self.load.pause:
                asyncio.get_running_loop().call_later(self.load.pause * random.random() * 2, self.ask)
            else:
                self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """One fewer."""
        if exc is not None or self.expected >= 0:
            self.load.errors += 1
        self.load.closed()


class Load:
    """`n` requests over `CONNECTIONS` connections; `pause`: mean seconds between an answer and the next request."""

    def __init__(self, port: int, n: int, path: Callable[[], str], *, gzip: bool = True, pause: float = 0.0) -> None:
        self.port, self.left, self.path, self.pause = port, n, path, pause
        self.kind = "gzip" if gzip else "identity"
        self.waited: list[float] = []
        self.errors = 0

    def request(self) -> bytes:
        """One request."""
        return f"GET {self.path()} HTTP/1.1\r\nhost: x\r\naccept-encoding: {self.kind}\r\n\r\n".encode()

    async def run(self) -> None:
        """All of it."""
        loop = asyncio.get_running_loop()
        self.open, self.done = CONNECTIONS, loop.create_future()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Client(self), "127.0.0.1", self.port)
        await self.done

    def closed(self) -> None:
        """Told by connections."""
        self.open -= 1
        if not self.open:
            self.done.set_result(None)


def cpu(pid: int) -> float:
    """Seconds that a process' threads have run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int) -> float:
    """MB that a process holds for itself; pages of the store's file are not counted."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def started(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A server that answers."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    port = int(arguments[1])
    for _ in range(200):
        time.sleep(0.1)
        try:
            asyncio.run(Load(port, 0, str).run())
            return process
        except OSError:
            continue
    raise SystemExit("the server did not start")


def compare(atlas: int, bare: int, ports: tuple[int, int], rounds: int, units: dict[str, int]) -> dict[str, float]:
    """CPU time per request, side by side."""
    found: dict[str, float] = {}
    for name, (service, _) in SIZES.items():
        for kind, gzip in (("gzip", True), ("plain", False)):
            n = (8000 if gzip else 4000) if name == "18 kB" else (1500 if gzip else 300)
            spent: dict[int, list[float]] = {atlas: [], bare: []}
            for _ in range(rounds):
                for pid, port in ((atlas, ports[0]), (bare, ports[1])):
                    before = cpu(pid)
                    load = Load(port, n, partial(some_unit, service, units[name]), gzip=gzip)
                    asyncio.run(load.run())
                    assert not load.errors, load.errors
                    spent[pid].append((cpu(pid) - before) / n * 1e6)
            ours, theirs = (statistics.median(spent[pid]) for pid in (atlas, bare))
            found |= {
                f"{name} {kind}, us": ours,
                f"{name} {kind}, bare, us": theirs,
                f"{name} {kind}, ratio": ours / theirs,
            }
    return found


def some_unit(service: str, units: int) -> str:
    """Path of a random unit."""
    return f"/api/m/{service}/0/{random.randrange(units)}"


def long_run(pid: int, port: int, n: int, units: int) -> dict[str, float]:
    """Many requests: latency, errors, memory."""
    found: dict[str, float] = {}
    waited, errors = [], 0

    path = partial(some_unit, "neuron2graph", units)
    start = time.perf_counter()
    for i in range(10):
        load = Load(port, n // 10, path)
        asyncio.run(load.run())
        waited += load.waited
        errors += load.errors
        if i in (0, 4, 9):
            found[f"memory after {(i + 1) * 10} %, MB"] = memory(pid)
    found |= {"requests": float(len(waited)), "errors": float(errors), "a second": n / (time.perf_counter() - start)}
    calm = Load(port, 10_000, path, pause=CONNECTIONS / 1000)
    asyncio.run(calm.run())
    for name, values in (("at once", waited), ("1,000 a second", calm.waited)):
        found |= {f"{name}, p{q}, ms": float(np.percentile(values, q)) * 1e3 for q in (50, 99)}
    return found | {"errors, 1,000 a second": float(calm.errors)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--units", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", default="asyncio", help="asyncio or uvloop")
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random.seed(0)
    large = max(options.units // 20, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "atlas.db"
        fill(path, options.units, large)
        ports = (options.port, options.port + 1)
        atlas = started(ATLAS, str(path), str(ports[0]), options.loop)
        bare = started(
            BARE, str(ports[0]), str(ports[1]), options.loop, "/api/m/neuron2graph/0/0", "/api/m/neuroscope/0/0"
        )
        try:
            found = compare(atlas.pid, bare.pid, ports, options.rounds, {"18 kB": options.units, "400 kB": large})
            found |= long_run(atlas.pid, ports[0], options.requests, options.units)
        finally:
            for process in (atlas, bare):
                process.terminate()
                process.wait()
    end(found, options.json)


if __name__ == "__main__":
    main()
