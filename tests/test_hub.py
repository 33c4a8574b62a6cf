"""To the hub and back. The hub is a folder: what stands in for its client moves files and nothing else."""

import fnmatch
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from saelens_n2g.bases.card import model_card
from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, load_saelens, save_saelens
from saelens_n2g.bases.hub import locate_dictionary, pull_from_hub, push_to_hub
from saelens_n2g.errors import ArtefactError, InputError

REPO = "ann/sparse"
EVALUATION = {"fit": {"l0": 41.0, "fvu": 0.2}, "test": {"l0": 42.25, "fvu": 0.21234567}}
EXTRA = {"l0": 41.0, "evaluation": EVALUATION, "training": {"alpha": 0.003, "lr": 0.001}, "training_samples": 10_000}
METADATA = SaeMetadata("EleutherAI/pythia-70m", "blocks.1.hook_resid_post", 128, True, "NeelNanda/pile-10k", EXTRA)
FILES = ("cfg.json", "sae_weights.safetensors", "COMMIT.json")


class FolderHub:
    """`huggingface_hub` as far as it is used, with `root/OWNER/NAME/REVISION/` for repositories."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, []

    def api(self, token=None):
        self.calls.append(("token", token))
        return SimpleNamespace(
            create_repo=self.create_repo,
            create_branch=self.create_branch,
            list_repo_files=self.list_repo_files,
            create_commit=self.create_commit,
        )

    def at(self, repo_id: str, revision: str | None) -> Path:
        place = self.root / "hub" / repo_id / (revision or "main")
        if not place.is_dir():
            raise LocalTokenNotFoundError(f"no {repo_id}\nat {revision}")
        return place

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("private", private))
        assert exist_ok
        (self.root / "hub" / repo_id / "main").mkdir(parents=True, exist_ok=True)

    def create_branch(self, repo_id, *, branch, exist_ok):
        assert exist_ok
        if not (self.root / "hub" / repo_id / branch).is_dir():
            shutil.copytree(self.at(repo_id, None), self.root / "hub" / repo_id / branch)

    def list_repo_files(self, repo_id, *, revision):
        place = self.at(repo_id, revision)
        return [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]

    def create_commit(self, repo_id, operations, *, commit_message, revision):
        assert commit_message
        place = self.at(repo_id, revision)
        for operation in operations:
            path = place / operation.path_in_repo
            if isinstance(operation, CommitOperationAdd):
                path.parent.mkdir(parents=True, exist_ok=True)
                with operation.as_file() as file:
                    path.write_bytes(file.read())
            else:
                path.unlink()
        self.calls.append(("commit", revision))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(self, repo_id, *, revision, allow_patterns):
        """Links into a store of blobs, as the real cache has them."""
        place, cache = self.at(repo_id, revision), self.root / "cache" / (revision or "main")
        cache.mkdir(parents=True, exist_ok=True)
        for name in self.list_repo_files(repo_id, revision=revision):
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                (cache / name).unlink(missing_ok=True)
                (cache / name).symlink_to(place / name)
        return str(cache)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = FolderHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def dictionary(sparsity: bool = False) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn(*shape, generator=generator) for shape in ((4, 9), (9,), (9, 4), (4,)))
    rates = torch.linspace(-5, 0, 9) if sparsity else None
    return Dictionary(*parts, rates, architecture="topk", k=2, metadata=METADATA.as_json())


@pytest.fixture
def folder(tmp_path):
    save_saelens(tmp_path / "sae", dictionary(), METADATA)
    return tmp_path / "sae"


# --- there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "layer_1/topk", "odd [1] name"])
def test_there_and_back_is_bit_for_bit(hub, folder, tmp_path, place):
    url = push_to_hub(folder, REPO, token="secret", private=True, path_in_repo=place)
    assert url == "https://hub/ann/sparse/commit/1"
    assert hub.calls == [("token", "secret"), ("private", True), ("commit", None)]
    back = pull_from_hub(REPO, tmp_path / "back", path_in_repo=place)
    cached = pull_from_hub(REPO, path_in_repo=place)
    assert back == tmp_path / "back"
    for name in FILES:
        assert (back / name).read_bytes() == (cached / name).read_bytes() == (folder / name).read_bytes()
        assert not (back / name).is_symlink()
    assert sorted(path.name for path in back.iterdir()) == sorted(FILES)
    x = torch.randn(5, 4)
    assert torch.equal(load_saelens(back).encode(x), dictionary().encode(x))


@pytest.mark.usefixtures("hub")
def test_the_card_is_beside_the_dictionary_and_other_files_stay(folder, tmp_path):
    (folder / "notes.txt").write_text("mine")
    push_to_hub(folder, REPO)
    top = tmp_path / "hub" / REPO / "main"
    (top / "paper.pdf").write_text("theirs")
    assert sorted(path.name for path in top.iterdir()) == sorted([*FILES, "README.md", "paper.pdf"])
    assert (top / "README.md").read_text() == model_card(load_saelens(folder), REPO)
    push_to_hub(folder, REPO, path_in_repo="b")
    assert (top / "paper.pdf").read_text() == "theirs"
    assert (top / "b" / "README.md").read_text() == model_card(load_saelens(folder), REPO, path_in_repo="b")
    assert not (folder / "README.md").exists(), "the folder that was pushed is left as it was"


def test_what_the_new_dictionary_has_not_is_removed(hub, folder, tmp_path):
    save_saelens(tmp_path / "old", dictionary(sparsity=True), METADATA)
    push_to_hub(tmp_path / "old", REPO)
    assert load_saelens(pull_from_hub(REPO, tmp_path / "back")).log10_sparsity is not None
    push_to_hub(folder, REPO)
    assert "sparsity.safetensors" not in hub.list_repo_files(REPO, revision=None)
    assert load_saelens(pull_from_hub(REPO, tmp_path / "back")).log10_sparsity is None


def test_a_branch_is_made_and_read(hub, folder, tmp_path):
    push_to_hub(folder, REPO, revision="v2")
    assert "cfg.json" not in hub.list_repo_files(REPO, revision=None)
    assert load_saelens(pull_from_hub(REPO, revision="v2")).k == 2
    with pytest.raises(InputError, match="repository ann/sparse: expected a dictionary at its top"):
        pull_from_hub(REPO, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.usefixtures("hub")
def test_a_dictionary_of_another_layout_is_pulled_too(tmp_path):
    from test_foreign import X, write_learning

    place = tmp_path / "hub" / REPO / "main" / "trainer_0"
    write_learning(place, "BatchTopKSAE")
    back = pull_from_hub(REPO, tmp_path / "back", path_in_repo="trainer_0")
    assert torch.equal(load_dictionary(back).encode(X), load_dictionary(place).encode(X))
    (back / "ae.pt").write_bytes(b"")
    with pytest.raises(ArtefactError, match=r"ae\.pt"):
        load_dictionary(back)


# --- where a dictionary is ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("rest", ["", "@v2", "/layer_1/topk", "@v2/layer_1/topk"])
def test_a_place_on_the_hub_in_one_word(folder, rest):
    revision = "v2" if "@" in rest else None
    push_to_hub(folder, REPO, revision=revision, path_in_repo="layer_1/topk" if "topk" in rest else "")
    found = locate_dictionary(f"hf:{REPO}{rest}")
    assert found == pull_from_hub(REPO, None, revision, "layer_1/topk" if "topk" in rest else "")
    assert (found / "cfg.json").read_bytes() == (folder / "cfg.json").read_bytes()


def test_a_local_place(folder, tmp_path, monkeypatch):
    assert locate_dictionary(str(folder)) == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate_dictionary("~/sae") == folder
    for spec, found in ((tmp_path / "nowhere", "nothing there"), (folder / "cfg.json", "a file")):
        with pytest.raises(InputError, match=rf"hf:OWNER/REPO\[@REV\]\[/PATH\], found {found}"):
            locate_dictionary(str(spec))


@pytest.mark.parametrize("spec", ["hf:", "hf:sparse", "hf:ann/", "hf:ann/sparse@", "hf:ann/sparse/", "hf:ann/spa rse"])
def test_other_forms_are_refused(spec):
    with pytest.raises(InputError, match="found another form"):
        locate_dictionary(spec)


@pytest.mark.parametrize("place", ["../up", "/top", "a/../../b"])
def test_a_place_outside_of_the_repository(folder, tmp_path, place):
    with pytest.raises(InputError, match="below the top of the repository"):
        push_to_hub(folder, REPO, path_in_repo=place)
    with pytest.raises(InputError, match="below the top of the repository"):
        pull_from_hub(REPO, tmp_path / "back", path_in_repo=place)


# --- what goes wrong ------------------------------------------------------------------------------------------


def answer(status: int) -> SimpleNamespace:
    request = SimpleNamespace(method="GET", url="https://hub", headers={})
    return SimpleNamespace(status_code=status, headers={}, request=request, text="", url="https://hub")


@pytest.mark.parametrize(
    "failure",
    [
        HfHubHTTPError("403 Forbidden\n\nno write token", response=answer(403)),
        RepositoryNotFoundError("404 Not Found\nno such repository", response=answer(404)),
        LocalTokenNotFoundError("Token is required\nlog in"),
        HfHubHTTPError.__bases__[0]("name or service not known\n"),
        ConnectionError("offline"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_the_hub_says_no_to_is_one_line(hub, folder, monkeypatch, failure):
    def fail(*_args, **_options):
        raise failure

    monkeypatch.setattr(hub, "create_commit", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    for call in (lambda: push_to_hub(folder, REPO), lambda: pull_from_hub(REPO)):
        with pytest.raises(InputError, match="repository ann/sparse: expected that the hub") as error:
            call()
        assert "\n" not in str(error.value)
        assert str(failure).split("\n")[0].strip() in str(error.value)


def test_the_real_client_without_a_network(folder):
    """The real client, which the tests keep offline."""
    for call in (lambda: push_to_hub(folder, REPO), lambda: pull_from_hub("ann/not-there")):
        with pytest.raises(InputError, match=r"repository ann/.*(offline|HF_HUB_OFFLINE|cannot find)") as error:
            call()
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="repository a/b/c"):
        push_to_hub(folder, "a/b/c")


@pytest.mark.usefixtures("hub")
def test_a_folder_with_other_things_is_not_replaced(folder, tmp_path):
    push_to_hub(folder, REPO)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"a new one, or one with a dictionary alone, found also thesis\.tex"):
        pull_from_hub(REPO, mine)
    assert (mine / "thesis.tex").read_text() == "years"
    with pytest.raises(InputError, match="expected a folder, found a file"):
        pull_from_hub(REPO, mine / "thesis.tex")
    (mine / "thesis.tex").unlink()
    assert load_saelens(pull_from_hub(REPO, mine)).k == 2


def test_what_is_damaged_goes_neither_up_nor_down(hub, folder, tmp_path):
    push_to_hub(folder, REPO)
    for place in (folder, tmp_path / "hub" / REPO / "main"):
        weights = bytearray((place / "sae_weights.safetensors").read_bytes())
        weights[-1] ^= 1
        (place / "sae_weights.safetensors").write_bytes(bytes(weights))
    before = len(hub.calls)
    with pytest.raises(ArtefactError, match="SHA-256"):
        push_to_hub(folder, REPO)
    assert len(hub.calls) == before
    with pytest.raises(ArtefactError, match="SHA-256"):
        pull_from_hub(REPO, tmp_path / "back")
    assert not (tmp_path / "back").exists()


# --- the card -------------------------------------------------------------------------------------------------


def parts(card: str) -> tuple[dict, dict[str, str]]:
    """YAML header and table."""
    _, header, body = card.split("---\n", 2)
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| ")]
    return yaml.safe_load(header), {row[0]: row[1] for row in rows if len(row) == 2}


def test_a_card_says_what_the_metadata_say():
    header, table = parts(model_card(dictionary(), REPO, path_in_repo="a", revision="v2"))
    assert header["library_name"] == "saelens"
    assert {"sparse-autoencoder", "topk"} <= set(header["tags"])
    assert header["base_model"] == ["EleutherAI/pythia-70m"]
    assert header["datasets"] == ["NeelNanda/pile-10k"]
    assert table["hook"] == "blocks.1.hook_resid_post"
    assert [table[name] for name in ("architecture", "d_in", "d_sae", "k")] == ["topk", "4", "9", "2"]
    assert table["L0 on test documents"] == "42.25"
    assert table["FVU on test documents"] == "0.2123"
    assert table["activations seen"] == "10000"
    assert table["BOS in front"] == "yes"


@pytest.mark.usefixtures("hub")
def test_the_cards_code_runs(folder):
    """The example for this package, as it stands on the card."""
    push_to_hub(folder, REPO, path_in_repo="a", revision="v2")
    card = model_card(load_saelens(folder), REPO, path_in_repo="a", revision="v2")
    ours, theirs = (block.split("```")[0] for block in card.split("```python\n")[1:])
    names = {"activations": torch.randn(3, 4)}
    exec(ours, names)
    assert torch.equal(names["features"], dictionary().encode(names["activations"]))
    assert 'SAE.load_from_disk(snapshot_download("ann/sparse", revision="v2") + "/a")' in theirs
    compile(theirs, "card", "exec")


def test_a_card_leaves_out_what_is_not_known_or_not_of_the_hub():
    bare = Dictionary.from_tied(torch.eye(4), torch.zeros(4), torch.zeros(4))
    header, table = parts(model_card(bare, REPO))
    assert set(header) == {"library_name", "tags"}
    assert set(table) == {"architecture", "d_in", "d_sae", "dtype"}
    assert table["architecture"] == "standard, tied"
    odd = {"model_name": "../x: y", "dataset_path": "a | b\nc <script>", "evaluation": [1], "prepend_bos": []}
    card = model_card(replace(bare, metadata=odd | {"l0": "?"}), REPO)
    header, table = parts(card)
    assert set(header) == {"library_name", "tags"}
    assert set(table) == {"model", "trained on", "architecture", "d_in", "d_sae", "dtype"}
    assert "| trained on | a \\| b c &lt;script> |" in card


# --- from the command line ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hub")
def test_push_and_pull_are_commands(folder, tmp_path, capsys, monkeypatch):
    from saelens_n2g import cli

    def run(*arguments) -> str:
        monkeypatch.setattr("sys.argv", ["saelens-n2g", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert run("push", folder, REPO, "--path", "a/b").strip() == f"https://hub/{REPO}/commit/1"
    assert "topk, d_in 4, d_sae 9" in run("pull", REPO, "--path", "a/b", "--out", tmp_path / "back")
    assert torch.equal(load_saelens(tmp_path / "back").W_enc, dictionary().W_enc)
