"""Dictionaries on the Hugging Face hub.

    push_to_hub(Path("out/dictionary/sae"), "me/my-sae", path_in_repo="layer_1")
    folder = pull_from_hub("me/my-sae", path_in_repo="layer_1")        # into the hub's cache
    folder = locate_dictionary("hf:me/my-sae@main/layer_1")            # the same in one word; or a local path

What cannot be done, for want of a network, a token or the repository, is an `InputError` of one line.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from saelens_n2g.bases.card import model_card
from saelens_n2g.bases.foreign import dictionary_files, reader_of
from saelens_n2g.bases.formats import KIND, load_saelens
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import COMMIT, committed, publishing
from saelens_n2g.progress import errors_only

CARD = "README.md"
_SPEC = re.compile(r"hf:(?P<repo>[^/@\s]+/[^/@\s]+)(@(?P<revision>[^/\s]+))?(/(?P<path>\S+))?")


def push_to_hub(
    folder: Path,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    path_in_repo: str = "",
) -> str:
    """Upload the SAELens folder `folder` with a model card in one commit; returns the address of the commit.

    The repository and, if named, the branch `revision` are created where they do not exist; `private` holds for a new
    repository. `token` None takes the one that is logged in. The card becomes README.md beside the dictionary, in place
    of an earlier one; files of an earlier dictionary there that this one has not are removed, all others stay. Raises
    `ArtefactError` for a folder that does not load and `InputError` for what the hub refuses.
    """
    import huggingface_hub as hub

    place = _inside(path_in_repo)
    dictionary = load_saelens(folder)
    files = sorted(name for name in dictionary_files() if (folder / name).is_file())
    card = model_card(dictionary, repo_id, path_in_repo=path_in_repo, revision=revision)
    with _one_line(repo_id):
        api = hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = set(api.list_repo_files(repo_id, revision=revision))
        old = sorted(there & {str(place / name) for name in dictionary_files() - set(files)})
        operations: list[Any] = [hub.CommitOperationDelete(name, is_folder=False) for name in old]
        operations += [hub.CommitOperationAdd(str(place / name), folder / name) for name in files]
        operations.append(hub.CommitOperationAdd(str(place / CARD), card.encode()))
        message = f"Dictionary of {dictionary.d_sae} features"
        commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    return str(commit.commit_url)


def pull_from_hub(
    repo_id: str, folder: Path | None = None, revision: str | None = None, path_in_repo: str = ""
) -> Path:
    """Download a dictionary, in any layout that is read here, and return the folder that holds it.

    `folder` None leaves it in the hub's cache; else it is copied there, whole or not at all, in place of an earlier
    dictionary. Other files of the repository are not fetched. Raises `InputError` if the hub does not give it, there is
    no dictionary at that place or `folder` holds other things, and `ArtefactError` if checksums do not agree.
    """
    import huggingface_hub as hub

    place = _inside(path_in_repo)
    if folder is not None:
        _may_be_replaced(folder)
    wanted = [escape(str(place / name)) for name in sorted(dictionary_files())]
    with _one_line(repo_id):
        cached = Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=wanted)) / place
    if reader_of(cached) is None:
        where = f"in the folder {path_in_repo!r}" if path_in_repo else "at its top (a folder is named as path_in_repo)"
        raise InputError(f"repository {repo_id}", f"a dictionary {where}", "none")
    meta = committed(cached, check=True)
    if folder is None:
        return cached
    with publishing(folder, KIND if meta is None else meta) as work:
        for name in dictionary_files() - {COMMIT}:
            if (cached / name).is_file():
                shutil.copyfile(cached / name, work / name)
    return folder


def locate_dictionary(spec: str) -> Path:
    """The folder of a dictionary given by a path or as `hf:OWNER/REPO[@REV][/PATH]`, which is pulled.

    REV is a branch, tag or commit without a slash. Raises `InputError` if there is no such folder, or as
    `pull_from_hub` does.
    """
    expected = "a folder, or hf:OWNER/REPO[@REV][/PATH]"
    if spec.startswith("hf:"):
        parts = _SPEC.fullmatch(spec)
        if parts is None:
            raise InputError(f"dictionary {spec!r}", expected, "another form")
        return pull_from_hub(parts["repo"], revision=parts["revision"], path_in_repo=parts["path"] or "")
    path = Path(spec).expanduser()
    if not path.is_dir():
        raise InputError(f"dictionary {spec!r}", expected, "a file" if path.exists() else "nothing there")
    return path


def _inside(path_in_repo: str) -> PurePosixPath:
    """`path_in_repo` as a path below the top of a repository."""
    place = PurePosixPath(path_in_repo)
    if place.is_absolute() or ".." in place.parts:
        raise InputError("path_in_repo", "a folder below the top of the repository", repr(path_in_repo))
    return place


def _may_be_replaced(folder: Path) -> None:
    """Raise `InputError` if `folder` holds anything but a dictionary: publishing would remove it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"folder {folder}", "a folder", "a file")
    if folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - dictionary_files() - {CARD})
        if others:
            raise InputError(f"folder {folder}", "a new one, or one with a dictionary alone", f"also {others[0]}")


@contextmanager
def _one_line(repo_id: str) -> Iterator[None]:
    """Turn whatever goes wrong between here and the hub into an `InputError`; its retries are not told one by one."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases are what the hub's own HTTP library raises without an answer, which differs by version, and OSError.
    failures: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError)
    try:
        with errors_only("huggingface_hub"):
            yield
    except failures as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"repository {repo_id}", "that the hub can be reached and allows it", said) from error
