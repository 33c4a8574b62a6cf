"""The report of a model: pages out of Markdown, sentences out of numbers, commands out of settings."""

import base64
import json
import re
from pathlib import Path

import pytest

from saelens_n2g.commands.report import FULL, PARTS, SMALL, plan, report
from saelens_n2g.errors import ArtefactError, InputError, UnitError
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.progress import Silent
from saelens_n2g.report.chapters import Chapter, Figure, read_text
from saelens_n2g.report.curves import of_sweep
from saelens_n2g.report.page import page_of, rendered
from saelens_n2g.report.summary import summary
from saelens_n2g.report.write import write_report

SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'/>"


def chapter(folder: Path, name: str = "bases", **changes) -> Chapter:
    """A chapter whose files are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".svg", ".png"):
        (folder / f"f1{suffix}").write_bytes(SVG)
    write_json(folder / "results.json", {"a": 1})
    given = {
        "name": name,
        "title": f"Of {name}",
        "question": "Which?",
        "command": f"saelens-n2g {name}",
        "said": ("First of all.", "Then."),
        "limits": ("Not that.",),
        "tables": (("Means", "| a | b |\n| :--- | ---: |\n| x | 1 |"),),
        "figures": (Figure(folder / "f1", "F1 by layer"),),
        "text": "**All of it**\n\nText.\n\n![F1](f1.svg)",
        "folder": folder,
        "data": folder / "results.json",
        "provenance": {"subject": {"model": "tiny", "revision": None}, "corpus": {"source": "x", "tokens": 1200}},
    }
    return Chapter(**{**given, **changes})


# --- pages ----------------------------------------------------------------------------------------------------


def test_markdown_becomes_a_page_with_its_figures_inside(tmp_path):
    (tmp_path / "f1.svg").write_bytes(SVG)
    text = "# Title\n\n**A heading**\n\n**Bold** words\n\n| a |\n| ---: |\n| 1 |\n\n![seen & said](f1.svg)"
    made = page_of(
        text, "T", lambda name: tmp_path / name, links=[("index.html", "Summary")], provenance='{"a": "<b>"}'
    )
    assert "<h3>A heading</h3>" in made
    assert "<p><strong>Bold</strong> words</p>" in made, "only a paragraph that is all bold is a heading"
    assert '<div class="scroll"><table>' in made
    (data,) = re.findall(r'<figure><img alt="seen &amp; said" src="data:image/svg\+xml;base64,([^"]+)">', made)
    assert base64.b64decode(data) == SVG
    assert "<figcaption>seen &amp; said</figcaption></figure>" in made
    assert '<nav aria-label="Pages"><a href="index.html">Summary</a></nav>' in made
    assert "&quot;&lt;b&gt;&quot;" in made
    assert "default-src 'none'" in made
    assert "$" not in made


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "`<img src=x onerror=alert(1)>`",
        "| <b onclick=x> |\n| --- |\n| <i> |",
        "[a](javascript:alert(1))",
        "<!-- -->\n<style>",
    ],
)
def test_text_of_models_is_never_markup(hostile):
    made = rendered(hostile, Path)
    assert not re.search(r"<(script|img|b|i|style|!--)\b|<!--|href=\"javascript", made), made


def test_a_figure_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ArtefactError, match="an SVG file"):
        rendered("![a](no.svg)", lambda name: tmp_path / name)


# --- folder ---------------------------------------------------------------------------------------------------


def test_the_folder_holds_summary_pages_figures_and_data(tmp_path):
    units = tmp_path / "units.html"
    units.write_text("units")
    one = chapter(tmp_path / "one", "bases", units=units)
    two = chapter(tmp_path / "two", "case", provenance={**one.provenance, "corpus": {"source": "x", "tokens": 7}})
    out = tmp_path / "report"
    write_report([one, two], out, "key", "saelens-n2g report", {"ioi": "no | names"})
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {
        "COMMIT.json", "index.html", "report.md", "bases.html", "case.html", "units-bases.html",
        "data/bases.json", "data/case.json",
        *(f"figures/{name}-f1{suffix}" for name in ("bases", "case") for suffix in (".svg", ".png")),
    }  # fmt: skip
    text = (out / "report.md").read_text()
    assert text.startswith("# What the units of tiny do, and how we know\n")
    assert "| Model | tiny |" in text
    assert "| Tokens, Of bases | 1,200 |\n| Tokens, Of case | 7 |" in text, "said apart where chapters differ"
    assert "- **Of bases.** First of all." in text
    assert "- ioi: no \\| names" in text
    assert "saelens-n2g report\n\n# or one after the other:\nsaelens-n2g bases\nsaelens-n2g case\n" in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (out / target).is_file(), target
    made = (out / "index.html").read_text()
    assert made.count("data:image/svg+xml") == 2
    assert not re.search(r"https?://(?!www\.w3\.org)", made.split("<details>")[0]), "nothing is fetched"


def test_a_figure_outside_its_chapter_is_refused(tmp_path):
    (tmp_path / "secret.svg").write_bytes(SVG)
    with pytest.raises(ArtefactError, match="found one outside"):
        write_report([chapter(tmp_path / "a", text="![x](../secret.svg)")], tmp_path / "r", "k", "c")
    assert not (tmp_path / "r").exists()


def test_a_missing_file_of_an_analysis_is_named(tmp_path):
    one = chapter(tmp_path / "a")
    one.data.unlink()
    with pytest.raises(ArtefactError, match=r"results\.json"):
        write_report([one], tmp_path / "r", "k", "c")
    with pytest.raises(ArtefactError, match="the text of a finished analysis"):
        read_text(tmp_path / "none.md")


def test_the_embedded_model_is_called_by_its_name(tmp_path):
    one = chapter(tmp_path / "a", provenance={"subject": {"model": "embedded"}})
    assert summary([one], "c", {}).startswith("# What the units of SmolLM2-135M-Instruct do")


# --- sentences on dictionaries --------------------------------------------------------------------------------


def point(name: str, l0: float, typical: float, *, seed: int = 0, expansion: float = 2.0, dead: int = 0) -> dict:
    return {
        "name": name,
        "site": "1.resid_post",
        "training": {"seed": seed, "expansion": expansion, "alpha": 0.1},
        "test": {"l0": l0, "fvu": typical / 2, "fvu_typical": typical, "dead": dead, "alive": 100 - dead},
        "behaviour": None,
    }


def sweep_folder(folder: Path, **changes) -> Path:
    value = {
        "format": "saelens-n2g/sweep",
        "version": 1,
        "points": [
            point("a", 10, 0.5, dead=7),
            point("b", 12, 0.45, seed=1),
            point("c", 30, 0.25, expansion=4.0),
        ],
        "pca": {"1.resid_post": [[1, 0.1], [100, 0.0]]},
        "pca_typical": {"1.resid_post": [[1, 0.9], [10, 0.4], [100, 0.3]]},
        "mmcs": {
            "1.resid_post": {
                "names": ["a", "b", "c"],
                "values": [[1, 0.9, 0.8], [0.9, 1, 0.1], [0.8, 0.1, 1]],
                "chance": 0.07,
            }
        },
        "provenance": {"subject": {"model": "tiny"}},
        **changes,
    }
    write_json(folder / "sweep.json", value)
    write_text(folder / "sweep.md", "| Site |\n| --- |\n| 1 |\n\nNote.\n")
    for suffix in (".svg", ".png"):
        (folder / f"frontier-1.resid_post{suffix}").write_bytes(SVG)
    return folder


def test_what_a_sweep_says_follows_from_its_numbers(tmp_path):
    found = of_sweep(sweep_folder(tmp_path), "saelens-n2g sweep")
    first, second, seeds, sizes = found.said
    assert "3 dictionaries leave 0.250 unexplained with 30 active features, 0.500 with 10" in first
    assert "1 of 3 rebuild them better than as many principal components do" in first, "0.25 < 0.378; 0.5 and 0.45 not"
    assert "0.0 to 7.0 % of the features are dead." in second
    assert "other seed, same settings" in seeds
    assert "a cosine of 0.90 on average (0.90 over 1 pair; chance: 0.07)" in seeds
    assert "0.10 on average" in sizes, "of b and c; a and c begin with the same rows"
    assert [f.path.name for f in found.figures] == ["frontier-1.resid_post"], "those that are there"
    assert found.tables[0][1].startswith("| Site |")


@pytest.mark.parametrize("changes", [{"pca_typical": {}}, {"points": [{"site": "1.resid_post"}]}, {"mmcs": None}])
def test_a_sweep_without_its_parts_is_damaged(tmp_path, changes):
    with pytest.raises(ArtefactError, match=r"sweep\.json"):
        of_sweep(sweep_folder(tmp_path, **changes), "c")


# --- plan -----------------------------------------------------------------------------------------------------


def asked(steps) -> dict[str, dict[str, list[str]]]:
    """Per part its options."""
    found = {}
    for step in steps:
        options: dict[str, list[str]] = {}
        for name, value in zip(step.arguments[1:], [*step.arguments[2:], ""], strict=True):
            if name.startswith("--"):
                options.setdefault(name, []).append("" if value.startswith("--") else value)
        found[step.part] = options
    return found


def test_the_later_dictionaries_are_those_of_the_sweep():
    steps = plan(PARTS, Path("r"), layers="0,1", at="1,15", seed=3)
    found = asked(steps)
    assert [step.arguments[0] for step in steps] == ["sweep", "study", "ioi", "case"]
    assert found["dictionaries"]["--layers"] == ["1,15"]
    named = [f"r/dictionaries/15.resid_post-alpha{alpha}-expansion4-seed0/sae" for alpha in ("0.001", "0.003")]
    assert found["ioi"]["--dictionary"] == named
    assert found["case"]["--later"] == named[-1:]
    assert found["case"]["--dictionary"] == ["r/dictionaries/1.resid_post-alpha0.003-expansion4-seed0/sae"]
    assert all(options["--seed"] == ["3"] and options["--out"] == [f"r/{part}"] for part, options in found.items())
    small = asked(plan(PARTS, Path("r"), layers="0", at="0,1", small=True))
    assert small["ioi"]["--dictionary"] == ["r/dictionaries/1.resid_post-expansion2-seed0/sae"]
    assert "--small" in small["bases"]
    assert set(FULL) == set(SMALL) == set(PARTS)


def test_layers_follow_from_the_depth(monkeypatch):
    depths = {"embedded": 30, "gpt2": 12, "two": 2, "one": 1}
    monkeypatch.setattr("saelens_n2g.booting.depth_of", lambda name, _revision: depths[name])

    def layers(model: str) -> tuple[str, str]:
        found = asked(plan(PARTS, Path("r"), model=model))
        return found["bases"]["--layers"][0], found["dictionaries"]["--layers"][0]

    assert layers("embedded") == ("0,1,2,3,6,12", "1,15")
    assert layers("gpt2") == ("0,1,2,3,4,5", "1,6")
    assert layers("two") == ("0,1", "0,1")
    small = asked(plan(PARTS, Path("r"), model="gpt2", small=True))
    assert small["bases"]["--layers"] == ["0,1,2"], "of any model"
    with pytest.raises(InputError, match="at least two layers"):
        layers("one")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"parts": "ioi,case"}, "dictionaries beside ioi and case"),
        ({"parts": "bases,bases"}, "each once"),
        ({"parts": "graphs"}, "dictionaries, bases, ioi, case"),
        ({"at": "3"}, "two layers"),
        ({"at": "3,1"}, "the earlier one first"),
        ({"pattern": "("}, "regular expression"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, named):
    given = {"layers": "0,1", "at": "0,1", **options}
    with pytest.raises(InputError, match=named):
        report(out=tmp_path, reporter=Silent(), run=lambda _: None, **given)


# --- run ------------------------------------------------------------------------------------------------------


def test_one_analysis_that_fails_is_named_and_the_others_are_shown(tmp_path):
    """Real readers on a sweep's folder; the case cannot be done and is tried again."""
    ran = []

    def run(arguments):
        ran.append(arguments[0])
        if arguments[0] == "case":
            raise UnitError("unit 1", "an activation above 0", "none")
        sweep_folder(Path(arguments[arguments.index("--out") + 1]))
        print("printed")

    def made():
        return report(
            out=tmp_path, reporter=Silent(), run=run, parts="dictionaries,case", layers="0,1", at="0,1", seed=0
        )

    for _ in range(2):
        with pytest.raises(UnitError):
            made()
        assert "unit 1: expected an activation above 0, found none" in (tmp_path / "report" / "report.md").read_text()
    assert ran == ["sweep", "case"] * 2, "what failed is not taken for finished"
    assert (tmp_path / "dictionaries" / "output.txt").read_text() == "printed\n"
    run_again = json.loads((tmp_path / "report" / "COMMIT.json").read_text())
    assert "index.html" in run_again["files"]


def test_nothing_is_done_twice(tmp_path):
    ran = []

    def run(arguments):
        ran.append(arguments[0])
        sweep_folder(Path(arguments[arguments.index("--out") + 1]))

    given = {"out": tmp_path, "reporter": Silent(), "run": run, "parts": "dictionaries", "layers": "0", "at": "0,1"}
    path = report(**given)
    assert path.read_text().startswith("<!doctype html>")
    assert report(**given) == path
    assert ran == ["sweep"]
    report(**given, seed=1)
    assert ran == ["sweep", "sweep"]
