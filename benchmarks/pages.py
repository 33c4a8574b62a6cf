"""How long pages take in a browser: first contentful paint on loopback, and what the console says.

    python benchmarks/pages.py runs/demo/atlas.db --unit 1-sae/1106 --unit 1/44
    python benchmarks/pages.py atlas.db --loads 10 --json figures.json

The server runs in a process of its own, Chromium beside it; every load is in a new context, so nothing is cached.
Milliseconds from the start of navigation, as the browser measures them (`first-contentful-paint`), minimum and median
over the loads: with other work on the cores the minimum is the more telling. `html` is the time until the document had
come, of which the server's work is most.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from saelens_n2g.jobs.artefacts import write_json
from saelens_n2g.server.address import path
from saelens_n2g.store.reader import Store

TIMES = """() => new Promise((resolve) => {
  const done = (paint) => resolve([paint, performance.getEntriesByType("navigation")[0].responseEnd]);
  const there = performance.getEntriesByName("first-contentful-paint")[0];
  if (there) { done(there.startTime); return; }
  new PerformanceObserver((list) => {
    for (const one of list.getEntriesByName("first-contentful-paint")) done(one.startTime);
  }).observe({ type: "paint", buffered: true });
})"""
TEXT = "The mayor of New York said on Monday that the city would not pay for the new bridge."


def pages(store: Store, model: str, units: list[str]) -> dict[str, str]:
    """What is loaded."""
    layer = next(iter(store.layers(model)))
    place = f"{layer.layer}-{layer.basis}"
    found = {"models": "/", "model": path("viz", model), "layer": path("viz", model, place)}
    found |= {f"unit {unit}": path("viz", model, *unit.split("/")) for unit in units}
    found |= {
        "search": "/search?query=york",
        "paste": f"/paste?text={TEXT}",
        "compare": f"/compare?text={TEXT}",
        "API": "/doc",
    }
    return found


def load(browser: Browser, address: str, said: list[str]) -> tuple[float, float]:
    """Milliseconds to the first paint and to the end of the document."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: said.append(f"{address}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"{address}: {error}"))
    page.goto(address)
    paint, html = page.evaluate(TIMES)
    context.close()
    return paint, html


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--unit", action="append", default=[])
    parser.add_argument("--loads", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    server = subprocess.Popen(
        [sys.executable, "-m", "saelens_n2g.cli", "serve", str(options.store), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    address = server.stdout.readline().split(" at ")[1].split()[0]
    said: list[str] = []
    figures: dict[str, Any] = {}
    with Store.open(options.store) as store:
        chosen = pages(store, store.models()[0].name, options.unit)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            load(browser, address + "/", [])
            for name, page in chosen.items():
                times = [load(browser, address + page, said) for _ in range(options.loads)]
                paints, ends = zip(*times, strict=True)
                figures[name] = {
                    "first paint, least": min(paints),
                    "first paint, median": statistics.median(paints),
                    "html, median": statistics.median(ends),
                }
            browser.close()
    finally:
        server.terminate()
        server.wait()
    table = Table("page", "first paint, least, ms", "median, ms", "html, median, ms", box=SIMPLE_HEAD)
    for name, one in figures.items():
        table.add_row(name, *(f"{value:.0f}" for value in one.values()))
    Console(width=100).print(table)
    print(f"the console said {len(said)} things" + "".join(f"\n  {one}" for one in said[:10]))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
