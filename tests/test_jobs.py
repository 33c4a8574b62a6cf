"""Artefacts are whole or absent; shards that are finished are not run again."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs import artefacts
from saelens_n2g.jobs.artefacts import (
    COMMIT,
    canonical_json,
    committed,
    ensure_folder,
    fingerprint,
    finished_before,
    publishing,
    read_json,
    require,
    write_bytes,
    write_json,
    write_text,
)
from saelens_n2g.jobs.engine import Engine, Job, LocalEngine, Shard, cut

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def publish(folder: Path, files: dict[str, str], **meta) -> None:
    with publishing(folder, meta) as work:
        for name, text in files.items():
            write_text(work / name, text)


# --- JSON -----------------------------------------------------------------------------------------------------


@given(JSON)
def test_canonical_json_comes_back_and_is_one_text_per_value(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text == canonical_json(json.loads(text))
    assert text.endswith("\n")


def test_the_order_of_keys_plays_no_part():
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert canonical_json(one) == canonical_json(other)
    assert fingerprint(one) == fingerprint(other) != fingerprint({"a": 1, "b": {"c": 2, "d": 4}})
    assert len(fingerprint(one)) == 16
    assert set(fingerprint(one)) <= set("0123456789abcdef")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_json_has_no_word_for(value, tmp_path):
    for write in (canonical_json, fingerprint, lambda v: write_json(tmp_path / "a.json", v)):
        with pytest.raises(ValueError, match="JSON"):
            write({"score": [value]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", '{"a": 1', "\udcff"])
def test_a_json_file_that_is_not_whole_is_named(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtefactError, match="a whole JSON file") as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_a_json_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="found nothing there"):
        read_json(tmp_path / "none.json")


# --- files ----------------------------------------------------------------------------------------------------


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    write_text(path, "ä\n")
    write_text(path, "one\n")
    assert path.read_bytes() == b"one\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("at", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_crash_while_writing_leaves_the_old_file_or_none(tmp_path, monkeypatch, at, old):
    path = tmp_path / "a.bin"
    if old is not None:
        write_bytes(path, old)
    monkeypatch.setattr(artefacts.os, at, _interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new and longer")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if old is None else [old])


def _interrupt(*_args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("write", [lambda p: write_text(p / "x", ""), ensure_folder, lambda p: publish(p / "x", {})])
def test_a_place_below_a_file_cannot_be_written(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can be written") as error:
        write(tmp_path / "file" / "below")
    assert str(tmp_path / "file" / "below") in str(error.value)


# --- folders --------------------------------------------------------------------------------------------------


def test_a_published_folder_is_known_by_its_meta(tmp_path):
    folder = tmp_path / "a"
    assert committed(folder) is None
    publish(folder, {"one.txt": "1", "deep/two.txt": "22"}, key="k")
    assert committed(folder, check=True) == require(folder, "thing") == {"key": "k"}
    assert set(json.loads((folder / COMMIT).read_text())["files"]) == {"one.txt", "deep/two.txt"}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_publishing_again_replaces_everything(tmp_path):
    publish(tmp_path / "a", {"one.txt": "1", "two.txt": "2"}, key=1)
    publish(tmp_path / "a", {"three.txt": "3"}, key=2)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [COMMIT, "three.txt"]
    assert require(tmp_path / "a", "thing") == {"key": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("old", [False, True])
def test_a_block_that_raises_leaves_the_old_folder_or_none(tmp_path, old):
    if old:
        publish(tmp_path / "a", {"one.txt": "1"}, key="old")

    def half() -> None:
        with publishing(tmp_path / "a", {"key": "new"}) as work:
            write_text(work / "one.txt", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert committed(tmp_path / "a", check=True) == ({"key": "old"} if old else None)
    assert [p.name for p in tmp_path.iterdir()] == (["a"] if old else [])


@pytest.mark.parametrize("nth", range(8))
def test_a_crash_anywhere_in_publishing_leaves_old_new_or_none(tmp_path, monkeypatch, nth):
    """Every call that changes the disk is where the process may end; what is found then is whole or not there."""
    folder = tmp_path / "a"
    publish(folder, {"one.txt": "old", "two.txt": "2"}, key="old")
    left = nth

    class Ended(BaseException):
        pass

    def ending(real):
        def call(*args, **kwargs):
            nonlocal left
            if left == 0:
                raise Ended
            left -= 1
            return real(*args, **kwargs)

        return call

    for name in ("rename", "replace", "fsync", "chmod"):
        monkeypatch.setattr(artefacts.os, name, ending(getattr(artefacts.os, name)))
    monkeypatch.setattr(artefacts.shutil, "rmtree", lambda *_a, **_k: None)  # a dead process clears nothing up
    with pytest.raises(Ended), publishing(folder, {"key": "new"}) as work:
        (work / "one.txt").write_text("new")
    monkeypatch.undo()
    found = committed(folder, check=True)
    assert found in (None, {"key": "old"}, {"key": "new"})
    assert (found is None) == (not folder.exists())
    publish(folder, {"one.txt": "newer"}, key="newer")
    assert require(folder, "thing") == {"key": "newer"}


def test_a_folder_without_marker_proves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_text("1")
    assert committed(tmp_path / "a") is None
    with pytest.raises(ArtefactError, match="a folder without commit marker"):
        require(tmp_path / "a", "thing")
    with pytest.raises(ArtefactError, match=r"thing .*b: expected a finished artefact, found nothing there"):
        require(tmp_path / "b", "thing")


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.unlink(), "nothing there"),
        (lambda path: path.write_text("12345"), "5 bytes"),
        (lambda path: path.write_text("123456789X"), "SHA-256"),
    ],
    ids=["removed", "truncated", "altered"],
)
def test_damage_is_found_and_the_file_named(tmp_path, damage, found):
    publish(tmp_path / "a", {"deep/one.txt": "1234567890", "two.txt": "2"}, key=1)
    damage(tmp_path / "a" / "deep" / "one.txt")
    with pytest.raises(ArtefactError, match=found) as error:
        require(tmp_path / "a", "thing")
    assert str(tmp_path / "a" / "deep" / "one.txt") in str(error.value)


def test_what_was_finished_before_is_said_and_must_be_whole(tmp_path):
    said: list[str] = []
    publish(tmp_path / "a", {"one.txt": "1234"}, key="mine")
    assert not finished_before(tmp_path / "a", "other", "thing", said.append)
    assert not finished_before(tmp_path / "b", "mine", "thing", said.append)
    assert said == []
    assert finished_before(tmp_path / "a", "mine", "thing", said.append)
    assert said == [f"nothing to do: {tmp_path / 'a'} is finished for these settings"]
    (tmp_path / "a" / "one.txt").write_text("1235")
    with pytest.raises(ArtefactError, match="SHA-256"):
        finished_before(tmp_path / "a", "mine", "thing", said.append)
    assert len(said) == 1


@pytest.mark.parametrize("text", ["[]", '{"files": {}}', "{"])
def test_a_damaged_marker_is_named(tmp_path, text):
    publish(tmp_path / "a", {"one.txt": "1"})
    (tmp_path / "a" / COMMIT).write_text(text)
    with pytest.raises(ArtefactError, match=COMMIT):
        committed(tmp_path / "a")


# --- engine ---------------------------------------------------------------------------------------------------


class Squares:
    """A job whose shards are files of squares."""

    def __init__(self, folder: Path, power: int = 2, fail_at: int | None = None) -> None:
        self.folder, self.power, self.fail_at, self.ran = folder, power, fail_at, list[str]()

    @property
    def meta(self) -> dict:
        return {"power": self.power}

    def run(self, shard: Shard, work: Path) -> None:
        self.ran.append(shard.name)
        write_json(work / "half.json", [])
        if shard.start == self.fail_at:
            raise KeyboardInterrupt
        write_json(work / "values.json", [i**self.power for i in range(shard.start, shard.stop)])


@given(st.integers(0, 60), st.integers(1, 20))
def test_shards_cover_every_row_once(total, size):
    shards = cut(total, size)
    assert [i for s in shards for i in range(s.start, s.stop)] == list(range(total))
    assert all(0 < s.stop - s.start <= size for s in shards)
    assert len({s.name for s in shards}) == len(shards)


def test_finished_shards_are_passed_over(tmp_path):
    assert isinstance(LocalEngine(), Engine)
    assert isinstance(Squares(tmp_path), Job)
    shards, told = cut(10, 4), list[Shard]()
    with pytest.raises(KeyboardInterrupt):
        LocalEngine().run(Squares(tmp_path, fail_at=4), shards, told.append)
    assert told == shards[:1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard_00000"]
    again = Squares(tmp_path)
    LocalEngine().run(again, shards, told.append)
    assert again.ran == ["shard_00001", "shard_00002"]
    assert told == [shards[0], *shards], "who waits for shards is told of finished ones too"
    values = [v for s in shards for v in read_json(tmp_path / s.name / "values.json")]
    assert values == [i * i for i in range(10)]


def test_shards_of_another_job_or_another_cut_are_done_again(tmp_path):
    LocalEngine().run(Squares(tmp_path), cut(10, 4))
    cubes = Squares(tmp_path, power=3)
    LocalEngine().run(cubes, cut(10, 4))
    assert cubes.ran == ["shard_00000", "shard_00001", "shard_00002"]
    assert read_json(tmp_path / "shard_00002" / "values.json") == [512, 729]
    longer = Squares(tmp_path, power=3)
    LocalEngine().run(longer, cut(11, 4))
    assert longer.ran == ["shard_00002"]


def test_a_damaged_shard_is_named(tmp_path):
    LocalEngine().run(Squares(tmp_path), cut(4, 4))
    (tmp_path / "shard_00000" / "values.json").write_text("[")
    with pytest.raises(ArtefactError, match=r"shard_00000/values\.json"):
        LocalEngine().run(Squares(tmp_path), cut(4, 4))


def test_a_folder_is_removed_at_one_stroke(tmp_path, monkeypatch):
    """Killed in the middle, what is left is not taken for the folder."""
    folder = tmp_path / "one"
    for name in ("a", "b"):
        write_text(folder / name, name)

    def killed(path):
        (path / "one" / "a").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(artefacts.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        artefacts.remove_folder(folder)
    assert not folder.exists()
    assert [p.name[:5] for p in tmp_path.iterdir()] == [".one."]
    monkeypatch.undo()
    write_text(folder / "c", "c")
    artefacts.remove_folder(folder)
    artefacts.remove_folder(folder)
    assert not folder.exists()
