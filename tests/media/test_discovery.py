"""Finding media: what counts, what is passed over, under which name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fer_batch.errors import MediaError
from fer_batch.media.discovery import find, kind_of, root_of


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(*inputs: Path) -> list[str]:
    return [file.media for file in find(inputs)]


def test_folder_is_searched_to_its_depths_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a/deep/er/c.JPG", "a/b.mkv", "B.png", "a/notes.txt", "a/table.csv")
    assert names(tmp_path) == ["B.png", "a/b.mkv", "a/deep/er/c.JPG", "b.mp4"]


def test_facts_of_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "clip é 1.MOV")
    (file,) = find([tmp_path])
    status = (tmp_path / "clip é 1.MOV").stat()
    assert (file.path, file.kind) == (tmp_path / "clip é 1.MOV", "video")
    assert (file.size_bytes, file.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (file.subject, file.camera) == (None, None)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("a.mp4", "video"),
        ("a.M2TS", "video"),
        ("a.gif", "video"),
        ("a.webp", "image"),
        ("a.TIF", "image"),
        ("a.txt", None),
        ("mp4", None),
        ("a.mp4.part", None),
    ],
)
def test_kind_by_extension(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.mp4",
        "._resource.mp4",
        "~$lock.mp4",
        ".git/a.mp4",
        "sub/.cache/b.jpg",
        "a.mp4.part",
        "a.mp4.crdownload",
        "a.part.mp4",
        "a.TMP.mp4",
        "__MACOSX/a.mp4",
        "@eaDir/a.jpg",
    ],
)
def test_hidden_and_temporary_are_passed_over(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "good.mp4")
    assert names(tmp_path) == ["good.mp4"]


def test_results_of_an_earlier_run_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "out/run.json", "out/faces/x.parquet", "out/annotated/a.mp4")
    touch(tmp_path, "killed/.lock", "killed/faces/x.parquet", "killed/annotated/a.mp4")
    touch(tmp_path, "faces/b.jpg", "project/run.json", "project/c.mp4")
    assert names(tmp_path) == ["a.mp4", "faces/b.jpg", "project/c.mp4"]


def test_named_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "recording", ".hidden.mp4", "scan.png")
    files = find([tmp_path / "recording", tmp_path / ".hidden.mp4", tmp_path / "scan.png"])
    assert [(file.media, file.kind) for file in files] == [
        (".hidden.mp4", "video"),
        ("recording", "video"),
        ("scan.png", "image"),
    ]


def test_root_is_the_common_parent(tmp_path: Path) -> None:
    touch(tmp_path, "day1/a.mp4", "day2/b.mp4", "day2/c.mp4")
    one, two = tmp_path / "day1", tmp_path / "day2"
    assert root_of([one]) == one
    assert root_of([one / "a.mp4"]) == one
    assert root_of([one, two / "b.mp4"]) == tmp_path
    assert root_of([two / "b.mp4", two]) == two
    assert names(one, two) == names(two, one) == ["day1/a.mp4", "day2/b.mp4", "day2/c.mp4"]
    assert names(two / "c.mp4") == ["c.mp4"]


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "videos/a.mp4")
    monkeypatch.chdir(tmp_path / "videos")
    (file,) = find([Path("../videos")])
    assert (file.path, file.media) == (tmp_path / "videos/a.mp4", "a.mp4")


def test_file_named_twice_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    os.link(tmp_path / "sub/b.mp4", tmp_path / "hard.mp4")
    assert names(tmp_path, tmp_path / "a.mp4", tmp_path, tmp_path / "sub") == ["a.mp4", "hard.mp4"]
    assert names(tmp_path / "a.mp4", tmp_path / "link.mp4") == ["a.mp4"]


def test_name_in_unknown_encoding_fits_into_tables(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")).touch()
    (file,) = find([tmp_path])
    assert file.media == r"caf\udce9.mp4"
    assert file.path.exists()


def test_links_are_followed_and_loops_survived(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "in/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/self.mp4").symlink_to(tmp_path / "in/self.mp4")
    assert names(tmp_path / "in") == ["a.mp4", "more/b.mp4", "self.mp4"]


def test_dangling_link_is_kept_for_the_decoder_to_report(tmp_path: Path) -> None:
    (tmp_path / "moved.mp4").symlink_to(tmp_path / "away.mp4")
    assert names(tmp_path) == ["moved.mp4"]


def test_pipe_is_no_medium(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert names(tmp_path) == []


@pytest.mark.parametrize("inputs", [["missing"], ["there.mp4", "missing"]])
def test_missing_input_is_named(tmp_path: Path, inputs: list[str]) -> None:
    touch(tmp_path, "there.mp4")
    with pytest.raises(MediaError, match=r"missing: No such file") as caught:
        find([tmp_path / name for name in inputs])
    assert caught.value.path == tmp_path / "missing"


def test_no_input_is_an_error() -> None:
    with pytest.raises(MediaError, match="no input"):
        find([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "closed/b.mp4")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(MediaError, match="closed: the folder cannot be read"):
        find([tmp_path])


def test_folder_that_cannot_be_listed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.mp4", "closed/b.mp4")
    iterdir = Path.iterdir

    def refuse(self: Path):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(MediaError, match="closed: the folder cannot be read: Permission denied"):
        find([tmp_path])


def test_disfa_layout(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Videos_LeftCamera/LeftVideoSN001_comp.avi",
        "Video_RightCamera/RightVideoSN032_comp.avi",
        "Videos_RightCamera/RightVideoSN001_Comp.avi",
        "ActionUnit_Labels/SN001/SN001_au1.txt",
        "Landmark_Points/SN001/SN001_0000_lm.mat",
        "Other/LeftVideoSN002_comp.avi",
        "Videos_LeftCamera/readme.avi",
    )
    found = {file.media: (file.subject, file.camera) for file in find([tmp_path])}
    assert found == {
        "Videos_LeftCamera/LeftVideoSN001_comp.avi": ("SN001", "left"),
        "Video_RightCamera/RightVideoSN032_comp.avi": ("SN032", "right"),
        "Videos_RightCamera/RightVideoSN001_Comp.avi": ("SN001", "right"),
        "Other/LeftVideoSN002_comp.avi": (None, None),
        "Videos_LeftCamera/readme.avi": (None, None),
    }


def test_disfa_folder_given_by_itself(tmp_path: Path) -> None:
    touch(tmp_path, "Videos_LeftCamera/LeftVideoSN004_comp.avi")
    (file,) = find([tmp_path / "Videos_LeftCamera"])
    assert (file.media, file.subject, file.camera) == ("LeftVideoSN004_comp.avi", "SN004", "left")
