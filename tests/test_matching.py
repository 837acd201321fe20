"""Patterns and lists of inputs."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import matching
from beam_jobs.errors import UsageError
from beam_jobs.matching import Found, match, match_list
from tests.remote_stores import Hadoop, ObjectStore, StoreError

NOBODY = 65534


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def names(*patterns: str, root: str | None = None) -> list[str]:
    return sorted(found.file_name for found in match(patterns, root=root))


class TestWhatMatches:
    def test_a_file(self, here: Path) -> None:
        make("a/b.jpg")
        (found,) = match(["a/b.jpg"])
        stat = os.stat("a/b.jpg")
        assert found == Found(str(here / "a/b.jpg"), "b.jpg", 7, stat.st_mtime_ns)

    def test_a_folder_is_all_below_it_whatever_the_ending(self, here: Path) -> None:
        make("p/1.jpg", "p/x/2", "p/x/y/3.txt", "q/4")
        assert names("p") == names("p/") == names(str(here / "p")) == ["1.jpg", "x/2", "x/y/3.txt"]

    def test_the_current_folder(self, here: Path) -> None:
        make("a", "b/c")
        assert names(".") == ["a", "b/c"]

    def test_globs(self, here: Path) -> None:
        make("p/1.jpg", "p/2.JPG", "p/x/3.jpg", "p/x/y/4.jpg", "p/x/y/5.png", "p/z/y/6.jpg")
        assert names("p/*.jpg") == ["1.jpg"]
        assert names("p/*") == ["1.jpg", "2.JPG"]
        assert names("p/**/*.jpg") == ["1.jpg", "x/3.jpg", "x/y/4.jpg", "z/y/6.jpg"]
        assert names("p/**") == names("p")
        assert names("p/*/") == ["x/3.jpg", "x/y/4.jpg", "x/y/5.png", "z/y/6.jpg"]
        assert names("p/**/y/*.jpg") == ["x/y/4.jpg", "z/y/6.jpg"]
        assert names("p/[xz]/y/?.jpg") == ["x/y/4.jpg", "z/y/6.jpg"]
        assert names("p/[!x]/**") == ["z/y/6.jpg"]
        assert names("**/y/**/4*") == ["p/x/y/4.jpg"]

    def test_what_exists_is_literal(self, here: Path) -> None:
        make("y [1].jpg", "y 1.jpg", "a*b", "aab", "d[1]/x.jpg", "d1/x.jpg")
        assert names("y [1].jpg") == ["y [1].jpg"]
        assert names("a*b") == ["a*b"]
        assert [f.uri for f in match(["d[1]/*.jpg"])] == [str(here / "d[1]/x.jpg")]
        assert names("d[1]") == ["x.jpg"]
        assert names("*/x.jpg") == ["d1/x.jpg", "d[1]/x.jpg"]

    def test_hidden_names_are_left_out_and_counted(self, here: Path) -> None:
        make("p/1.jpg", "p/.2.jpg", "p/.git/3.jpg", "p/.git/4.jpg", "p/.DS_Store")
        found = match(["p"])
        assert [f.file_name for f in found] == ["1.jpg"]
        assert found.hidden_skipped == 3, "a hidden folder counts once"
        found = match(["p/**/*.jpg"])
        assert len(list(found)) == 1
        assert found.hidden_skipped == 2, "what the pattern could not match anyway does not count"

    def test_hidden_names_are_taken_when_they_are_asked_for(self, here: Path) -> None:
        make("p/.2.jpg", "p/.git/3.jpg", "p/.git/.4.jpg")
        assert names("p/.2.jpg") == [".2.jpg"]
        assert names("p/.*.jpg") == [".2.jpg"]
        assert names("p/.git") == ["3.jpg"]
        assert names("p/.g*/*") == [".git/3.jpg"]

    def test_links(self, here: Path) -> None:
        make("p/1.jpg", "other/2.jpg")
        os.symlink("1.jpg", "p/file-link.jpg")
        os.symlink("../other", "p/folder-link")
        os.symlink(".", "p/loop")
        found = match(["p"])
        assert sorted(f.file_name for f in found) == ["1.jpg", "file-link.jpg"]
        assert found.dir_links_skipped == 2
        assert names("p/**/*.jpg") == ["1.jpg", "file-link.jpg"]
        assert names("p/folder-link") == ["2.jpg"], "named literally"
        assert names("p/*/2.jpg") == ["folder-link/2.jpg"], "as in a shell"

    def test_links_to_nothing_are_inputs_that_will_fail(self, here: Path) -> None:
        make("p/1.jpg")
        os.symlink("missing", "p/dangling.jpg")
        os.symlink("self.jpg", "p/self.jpg")
        for pattern in ("p", "p/*.jpg", "p/**/*.jpg"):
            found = {f.file_name: f.size for f in match([pattern])}
            assert found == {"1.jpg": 7, "dangling.jpg": None, "self.jpg": None}
        assert names("p/dangling.jpg") == ["dangling.jpg"]

    def test_special_files(self, here: Path) -> None:
        make("p/1.jpg")
        os.mkfifo("p/fifo")
        os.symlink("/dev/zero", "p/device")
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("p/socket")
            found = match(["p"])
            assert [f.file_name for f in found] == ["1.jpg"]
        assert found.special_skipped == 3
        assert names("p/fifo") == ["fifo"], "what is named is an input, and will fail"

    def test_counters_start_again(self, here: Path) -> None:
        make("p/1", "p/.2")
        found = match(["p"])
        assert list(found) == list(found)
        assert found.hidden_skipped == 1

    def test_a_deep_tree(self, here: Path) -> None:
        # Deeper than the stack and the longest path: what is beyond that is an input that fails.
        current = os.open(".", os.O_RDONLY)
        for _ in range(1200):
            os.mkdir("dddd", dir_fd=current)
            below = os.open("dddd", os.O_RDONLY, dir_fd=current)
            os.close(current)
            current = below
        os.close(current)
        try:
            (found,) = match(["dddd"])
        finally:
            subprocess.run(["rm", "-r", "dddd"], check=True)  # pytest could not clean this up
        assert found.size is None
        assert len(found.uri) > 4000


class TestNames:
    def test_relative_to_the_folder_before_the_first_wildcard(self, here: Path) -> None:
        make("p/x/1.jpg", "p/x/y/2.jpg")
        assert names("p/x/*/2.jpg") == ["y/2.jpg"]
        assert names("p/*/1.jpg") == ["x/1.jpg"]
        assert names("p/../p/x/1.jpg") == ["1.jpg"]

    def test_relative_to_the_common_folder_of_several(self, here: Path) -> None:
        make("p/x/1.jpg", "p/y/2.jpg", "pp/3.jpg")
        assert names("p/x/*", "p/y") == ["x/1.jpg", "y/2.jpg"]
        assert names("p", "pp/3.jpg") == ["p/x/1.jpg", "p/y/2.jpg", "pp/3.jpg"]
        assert names("p/x/1.jpg", "p/y/2.jpg") == ["x/1.jpg", "y/2.jpg"]
        assert names("/dev/null", "p/x/1.jpg") == sorted(["dev/null", str(here / "p/x/1.jpg")[1:]])

    def test_relative_to_the_root(self, here: Path) -> None:
        make("p/x/1.jpg", "q/2.jpg")
        assert names("p/x/*", root=".") == ["p/x/1.jpg"]
        assert names("p/x/*", root=str(here / "p") + "/") == ["x/1.jpg"]
        assert names("p/x/1.jpg", root="/") == [str(here / "p/x/1.jpg")[1:]]

    @pytest.mark.parametrize("root", ["p/x/y", "q", "p/x/1", "obj://b"])
    def test_outside_of_the_root(self, here: Path, root: str) -> None:
        make("p/x/1.jpg")
        with pytest.raises(UsageError) as caught:
            names("p", root=root)
        assert "p/x/1.jpg" in str(caught.value)
        assert root in str(caught.value)

    def test_any_characters(self, here: Path) -> None:
        odd = ["a b.jpg", "ü.jpg", "日本.jpg", 'it\'s "x".jpg', "new\nline.jpg", "50%.jpg", "back\\slash.jpg", "-x"]
        make(*(f"p/{name}" for name in odd))
        assert names("p") == sorted(odd)

    def test_undecodable_bytes(self, here: Path) -> None:
        name = os.fsdecode(b"p/caf\xe9.jpg")
        make(name)
        (found,) = match(["p/*.jpg"])
        assert found.uri == str(here / name)
        assert found.file_name == "caf%E9.jpg"
        assert matching.display_name(found.uri) == str(here / "p/caf%E9.jpg")
        assert names(name) == ["caf%E9.jpg"]
        assert names("p/caf?.jpg") == ["caf%E9.jpg"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("pattern", "words"),
        [
            ("missing.jpg", ["missing.jpg", "does not exist"]),
            ("p/no/such/file", ["p/no/such/file", "does not exist", "/p'"]),
            ("p/1.jpg/x", ["p/1.jpg/x", "does not exist"]),
            ("p/*.png", ["p/*.png", "matches no file", "/p'"]),
            ("no/*.png", ["no/*.png", "no folder"]),
            ("p/*/*.jpg", ["p/*/*.jpg", "matches no file"]),
            ("empty", ["empty", "without files"]),
            ("hidden", ["hidden", "without files", "left out by rule: 1"]),
            ("", ["''"]),
            ("a\0b", ["a\\x00b"]),
            ("n" * 300, ["n" * 300, "too long"]),
        ],
    )
    def test_a_pattern_without_inputs(self, here: Path, pattern: str, words: list[str]) -> None:
        make("p/1.jpg", "good.jpg", "hidden/.x")
        Path("empty/below").mkdir(parents=True)
        for patterns in ([pattern], ["good.jpg", pattern], [pattern, "good.jpg"]):
            with pytest.raises(UsageError) as caught:
                names(*patterns)
            for word in words:
                assert word in str(caught.value)

    def test_no_pattern(self) -> None:
        with pytest.raises(UsageError, match="no input"):
            match([])

    def test_what_does_not_exist_is_refused_before_anything_is_listed(self, here: Path) -> None:
        make("p/1.jpg")
        with pytest.raises(UsageError, match=r"missing\.jpg"):
            match(["p", "missing.jpg"])


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
class TestPermissions:
    @pytest.fixture
    def unprivileged(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A folder of an ordinary user, who we are; permissions mean nothing to root."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        monkeypatch.chdir(folder)
        root = os.geteuid() == 0
        if root:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield folder
        if root:
            os.seteuid(0)
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
        monkeypatch.undo()
        shutil.rmtree(folder)

    def test_a_folder_that_cannot_be_listed_is_an_input(self, unprivileged: Path) -> None:
        make("p/1.jpg", "p/closed/2.jpg", "p/unsearchable/3.jpg")
        os.chmod("p/closed", 0)
        os.chmod("p/unsearchable", 0o400)
        for pattern in ("p", "p/**/*.jpg"):
            found = {f.file_name: f.size for f in match([pattern])}
            assert found == {"1.jpg": 7, "closed": None, "unsearchable/3.jpg": None}

    def test_a_closed_folder_by_name_is_refused(self, unprivileged: Path) -> None:
        make("closed/2.jpg")
        os.chmod("closed", 0)
        for pattern in ("closed", "closed/*.jpg"):
            with pytest.raises(UsageError, match="cannot be listed: Permission denied"):
                names(pattern)
        with pytest.raises(UsageError, match="Permission denied"):
            names("closed/2.jpg")

    def test_a_file_that_cannot_be_read_is_an_input(self, unprivileged: Path) -> None:
        make("p/1.jpg")
        os.chmod("p/1.jpg", 0)
        assert names("p") == ["1.jpg"]


SEGMENTS = ["*", "**", "a", "b", "?", "[ab]", "[!a]", "a*", ".*", ".h", "*.x", "*b*", "**a"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three levels of every name, as files and as folders."""
    top = tmp_path_factory.mktemp("tree")
    folders = [top]
    for level in range(3):
        for folder in folders:
            for name in ("a.x", "f", ".h.x", "b.f", "ab.x"):
                (folder / name).touch()
        if level < 2:
            folders = [f / name for f in folders for name in ("a", "b", ".h", "ba")]
            for folder in folders:
                folder.mkdir()
    return top


class TestAgainstRegularExpressions:
    @staticmethod
    def expected(files: list[str], segments: list[str]) -> set[str]:
        any_folders = r"(?:[^/.][^/]*/)*"
        parts = []
        for i, segment in enumerate(segments):
            last = i == len(segments) - 1
            if segment == "**":
                parts.append(any_folders + (r"[^/.][^/]*" if last else ""))
            else:
                hidden = "" if segment.startswith(".") else r"(?!\.)"
                inner = re.sub(r"\(\?s:(.*)\)\\Z", r"\1", fnmatch.translate(segment)).replace(".*", "[^/]*")
                inner = re.sub(r"(?<!\\)\.(?!\*)", "[^/]", inner) if segment == "?" else inner
                parts.append(hidden + inner.replace("[^a]", "[^a/]") + ("" if last else "/"))
        return {f for f in files if re.fullmatch("".join(parts), f)}

    @given(st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).filter(lambda s: any("*" in x for x in s[:1])))
    def test_globs(self, tree: Path, segments: list[str]) -> None:
        files = [str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()]
        expected = self.expected(files, segments)
        found = match([f"{tree}/{'/'.join(segments)}"])
        if expected:
            listed = [f.file_name for f in found]
            assert len(listed) == len(set(listed))
            assert set(listed) == expected
        else:
            with pytest.raises(UsageError):
                list(found)


class TestLists:
    def test_lines_are_literal_and_need_not_exist(self, here: Path) -> None:
        make("p/1.jpg", "p/2.jpg")
        Path("list").write_bytes(
            b"\xef\xbb\xbfp/1.jpg\n\n  \np/*.jpg\r\n./p/../p/2.jpg\nmissing\nobj://b/x\n/dev/null\np"
        )
        found = list(match_list("list"))
        assert [f.file_name for f in found] == [
            "p/1.jpg", "p/*.jpg", "./p/../p/2.jpg", "missing", "obj://b/x", "/dev/null", "p"
        ]  # fmt: skip
        assert [f.uri for f in found][:3] == [str(here / name) for name in ("p/1.jpg", "p/*.jpg", "p/2.jpg")]
        assert [f.size for f in found][:5] == [7, None, 7, None, None]
        assert found[0].mtime_ns == os.stat("p/1.jpg").st_mtime_ns

    def test_any_bytes(self, here: Path) -> None:
        make(os.fsdecode(b"caf\xe9.jpg"))
        Path("list").write_bytes(b"caf\xe9.jpg\n")
        (found,) = match_list("list")
        assert (found.file_name, found.size) == ("caf%E9.jpg", 8)

    def test_root(self, here: Path) -> None:
        Path("list").write_text("p/1.jpg\n")
        assert [f.file_name for f in match_list("list", root="p")] == ["1.jpg"]
        with pytest.raises(UsageError, match=r"p/1\.jpg.*'q'"):
            list(match_list("list", root="q"))

    def test_a_list_is_streamed_from_a_pipe(self, here: Path) -> None:
        read, write = os.pipe()
        os.write(write, b"a\nb\n")
        found = iter(match_list(f"/dev/fd/{read}"))
        assert next(found).file_name == "a"
        os.close(write)
        assert [f.file_name for f in found] == ["b"]
        os.close(read)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "names no file"),
            (b"\n \r\n", "names no file"),
            (b"a\0b\0", "line 1, has a NUL byte"),
            ("ab\n".encode("utf-16"), "NUL byte"),
            (b"a\n" + b"x" * 100_000, "line 2, has more than 65,536 bytes"),
            (None, "cannot be read: No such file"),
        ],
    )
    def test_what_is_no_list(self, here: Path, content: bytes | None, words: str) -> None:
        if content is not None:
            Path("list").write_bytes(content)
        with pytest.raises(UsageError, match=words):
            list(match_list("list"))


@pytest.fixture(params=[ObjectStore, Hadoop])
def remote(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of either kind, with some files."""
    store: type[ObjectStore] = request.param
    top = f"{store.scheme()}://b"
    files = ["p/1.jpg", "p/x/2.jpg", "p/x/.3.jpg", "p/.h/4.jpg", "p/y [1].jpg", "q/5.png", "pq/6.jpg"]
    monkeypatch.setattr(store, "files", {f"{top}/{name}": b"data" for name in files})
    monkeypatch.setattr(store, "fault", None)
    return top


class TestRemote:
    def test_files_folders_and_globs(self, remote: str) -> None:
        (found,) = match([f"{remote}/p/1.jpg"])
        assert found[:3] == (f"{remote}/p/1.jpg", "1.jpg", 4)
        assert names(f"{remote}/p") == names(f"{remote}/p/") == ["1.jpg", "x/2.jpg", "y [1].jpg"]
        assert names(f"{remote}/p/y [1].jpg") == ["y [1].jpg"]
        assert names(f"{remote}/*/*.jpg") == ["p/1.jpg", "p/y [1].jpg", "pq/6.jpg"]
        assert names(f"{remote}/**/?.jpg") == ["p/1.jpg", "p/x/2.jpg", "pq/6.jpg"]
        assert names(f"{remote}/p/.h/*") == ["4.jpg"]
        assert len(names(remote)) == 5

    def test_hidden_names_are_counted(self, remote: str) -> None:
        found = match([f"{remote}/p"])
        assert len(list(found)) == 3
        assert found.hidden_skipped == 2

    def test_what_a_run_wrote_is_left_out(self, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("annotated/1.jpg", "_plan/plan.json"):
            monkeypatch.setitem(ObjectStore.files, f"{remote}/p/run/{name}", b"data")
            monkeypatch.setitem(Hadoop.files, f"{remote}/p/run/{name}", b"data")
        found = match([f"{remote}/**/?.jpg"], run_mark="_plan/plan.json")
        assert sorted(one.file_name for one in found) == ["p/1.jpg", "p/x/2.jpg", "pq/6.jpg"]
        assert found.runs_skipped == [f"{remote}/p/run"]
        assert [one.file_name for one in match([f"{remote}/p/run/annotated"], run_mark="_plan/plan.json")] == ["1.jpg"]
        with pytest.raises(UsageError, match="is the folder of a run"):
            match([f"{remote}/p/run"], run_mark="_plan/plan.json")

    def test_several(self, remote: str, here: Path) -> None:
        make("local.jpg")
        assert names(f"{remote}/p/*.jpg", f"{remote}/q") == ["p/1.jpg", "p/y [1].jpg", "q/5.png"]
        assert names(f"{remote}/q", "local.jpg") == [str(here / "local.jpg"), f"{remote}/q/5.png"]
        assert names(f"{remote}/q", root=remote) == ["q/5.png"]

    @pytest.mark.parametrize(
        ("pattern", "words"),
        [("/nope", "does not exist"), ("/p/*.gif", "matches no file"), ("*/x", "no bucket"), ("/nope/*", "no file")],
    )
    def test_refusals(self, remote: str, pattern: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            names(remote + pattern)

    def test_a_store_that_does_not_answer(self, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ObjectStore, "fault", StoreError("Unable to locate credentials"))
        with pytest.raises(UsageError, match="Unable to locate credentials"):
            names("obj://b/p")

    def test_an_unknown_scheme(self) -> None:
        with pytest.raises(UsageError, match="no file system for nope://"):
            names("nope://b/*")
