"""Find videos and still images in files and folders, local or behind URLs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from fer_batch.errors import MediaError
from fer_batch.records import MediaFile, MediaKind, MediaRow
from fer_batch.storage import urls

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2t", ".m2ts",
    ".m2v", ".m4v", ".mkv", ".mod", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm",
    ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
IMAGE_SUFFIXES = frozenset({
    ".avif", ".bmp", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tga", ".tif", ".tiff", ".webp",
})
TEMPORARY_SUFFIXES = frozenset({".crdownload", ".download", ".part", ".partial", ".temp", ".tmp"})
# fmt: on
TEMPORARY_PREFIXES = (".", "~")
FOREIGN_FOLDERS = frozenset({"$RECYCLE.BIN", "@eaDir", "__MACOSX", "lost+found"})
"""Folders of operating systems for trash, thumbnails and other things that are not media."""
OUTPUT_FILES = frozenset({".lock", "run.json"})
"""The output folder of a run has one of these files, beside the folder ``faces``."""

_DISFA_FOLDER = re.compile(r"videos?_(left|right)camera", re.IGNORECASE)
_DISFA_FILE = re.compile(r"(left|right)video(SN\d{3})_comp", re.IGNORECASE)


def find(inputs: Sequence[Path]) -> list[MediaFile]:
    """Find every video and image in files and in folders with all their subfolders.

    In folders, files are recognised by their extension; hidden and temporary files and the output
    folders of earlier runs are skipped. A file that is named itself is always taken, as a video if
    its extension is unknown. A file that can be reached by several paths (named twice, linked) is
    taken once. The result is sorted by ``media``.

    Raises:
        MediaError: An input does not exist, or a folder cannot be read; or local files are mixed
            with URLs, or URLs have no folder in common.
        ConfigError: The protocol of a URL is unknown, or the package for it is not installed.
    """
    inputs = [urls.path_of(path) for path in inputs]
    if any(map(urls.is_url, inputs)):
        return _find_urls(inputs)
    root = root_of(inputs)
    found: dict[tuple[int, int], MediaFile] = {}
    folders: set[tuple[int, int]] = set()
    for path in sorted(map(_absolute, inputs)):
        if path.is_dir():
            for inside in _walk(path, folders):
                _add(inside, root, found)
        else:
            _add(path, root, found)
    return sorted(found.values(), key=lambda file: file.media)


def source_of(row: MediaRow) -> MediaFile:
    """The source file of a row of the media table.

    Raises:
        MediaError: The file is missing, cannot be read, or has changed.
    """
    path = urls.join(row.root, row.media)
    try:
        stamp = urls.stamp(path)
    except urls.failures() as error:
        why = getattr(error, "strerror", None) or urls.reason(error)
        raise MediaError(f"{path}: the source cannot be read: {why}", path) from error
    if stamp != (row.size_bytes, row.mtime_ns):
        raise MediaError(
            f"{path}: the source has changed since it was processed: run `fer-batch process` again",
            path,
        )
    return MediaFile(path, row.media, row.kind, row.size_bytes, row.mtime_ns)


def root_of(inputs: Sequence[Path]) -> Path:
    """The folder that ``media`` is relative to: the common parent of the inputs, as absolute path.

    For a single folder it is the folder itself, for a single file the folder that holds it.

    Raises:
        MediaError: There are no inputs, or one does not exist.
    """
    if not inputs:
        raise MediaError("no input: name at least one file or folder", Path())
    for path in inputs:
        try:
            path.stat()
        except OSError as error:
            raise MediaError(f"{path}: {error.strerror}", path) from error
    paths = [_absolute(path) for path in inputs]
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in paths]))


def kind_of(path: PurePath) -> MediaKind | None:
    """Video or image, by the extension of the file name; None for any other file."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "image" if suffix in IMAGE_SUFFIXES else None


def _absolute(path: Path) -> Path:
    # Links are not resolved: the tables have to show the names that the user knows.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Media files in a folder and its subfolders. Links are followed, but no folder twice."""
    try:
        status = folder.stat()
        entries = sorted((entry, entry.is_dir()) for entry in folder.iterdir())
    except OSError as error:
        message = f"{folder}: the folder cannot be read: {error.strerror}"
        raise MediaError(message, folder) from error
    if (status.st_dev, status.st_ino) in seen or _is_output(entries):
        return
    seen.add((status.st_dev, status.st_ino))
    for entry, is_folder in entries:
        if _is_skipped(entry.name):
            continue
        if is_folder:
            yield from _walk(entry, seen)
        elif _is_medium(entry):
            yield entry


def _is_skipped(name: str) -> bool:
    return name.startswith(TEMPORARY_PREFIXES) or name in FOREIGN_FOLDERS


def _is_medium(path: PurePath) -> bool:
    suffixes = map(str.lower, path.suffixes)
    return kind_of(path) is not None and TEMPORARY_SUFFIXES.isdisjoint(suffixes)


def _is_output(entries: Sequence[tuple[Path, bool]]) -> bool:
    """Whether a folder holds the tables of an earlier run."""
    names = {(entry.name, is_folder) for entry, is_folder in entries}
    return ("faces", True) in names and any((name, False) in names for name in OUTPUT_FILES)


def _add(path: Path, root: Path, found: dict[tuple[int, int], MediaFile]) -> None:
    # A link to a missing file is kept: decoding will report it.
    status = path.stat() if path.exists() else path.lstat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        return
    subject, camera = _disfa(path)
    file = MediaFile(
        path=path,
        # A name in an unknown encoding must become valid UTF-8 for the tables.
        media=path.relative_to(root).as_posix().encode(errors="backslashreplace").decode(),
        kind=kind_of(path) or "video",
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        subject=subject,
        camera=camera,
    )
    key = (status.st_dev, status.st_ino)
    if key not in found or file.media < found[key].media:
        found[key] = file


def _find_urls(inputs: Sequence[Path]) -> list[MediaFile]:
    """`find` for URLs: one listing for each input, and no request for each folder."""
    found: dict[str, urls.Entry] = {}
    folders = []
    for path in inputs:
        if not urls.is_url(path):
            raise MediaError(f"{path}: local files and URLs cannot be in one run", path)
        try:
            entries = urls.listing(path)
        except urls.failures() as error:
            raise MediaError(f"{path}: cannot be read: {urls.reason(error)}", path) from error
        if not entries:
            raise MediaError(f"{path}: there is no such file or folder", path)
        is_file = not entries[0].name
        folders.append(str(path.parent if is_file else path).rstrip("/"))
        for entry in entries if is_file else _wanted(entries):
            found[f"{folders[-1]}/{entry.name or path.name}"] = entry
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    common = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels)]
    if len(common) < 3:  # protocol, nothing, bucket
        message = f"{', '.join(map(str, inputs))}: they have no folder in common"
        raise MediaError(message, inputs[0])
    root = "/".join(common)
    path = urls.path_of(root)
    return [_behind_url(path, url[len(root) + 1 :], found[url]) for url in sorted(found)]


def _behind_url(root: Path, name: str, entry: urls.Entry) -> MediaFile:
    subject, camera = _disfa(PurePosixPath(root.name, name))
    return MediaFile(
        path=root / name,
        media=name,
        kind=kind_of(PurePosixPath(name)) or "video",
        size_bytes=entry.size_bytes,
        mtime_ns=entry.mtime_ns,
        subject=subject,
        camera=camera,
    )


def _wanted(entries: Sequence[urls.Entry]) -> Iterator[urls.Entry]:
    """The files that `_walk` would take if they were in a local folder."""
    paths = [(PurePosixPath(entry.name), entry) for entry in entries]
    with_faces = [path for path, _ in paths if "faces" in path.parts]
    holds_faces = {
        folder.parent for path in with_faces for folder in path.parents if folder.name == "faces"
    }
    outputs = {path.parent for path, _ in paths if path.name in OUTPUT_FILES} & holds_faces
    for path, entry in paths:
        if (
            _is_medium(path)
            and not any(map(_is_skipped, path.parts))
            and outputs.isdisjoint(path.parents)
        ):
            yield entry


def _disfa(path: PurePath) -> tuple[str | None, Literal["left", "right"] | None]:
    """Subject and camera of a DISFA video like ``Videos_LeftCamera/LeftVideoSN001_comp.avi``."""
    file = _DISFA_FILE.fullmatch(path.stem)
    if not file or not _DISFA_FOLDER.fullmatch(path.parent.name):
        return None, None
    return file[2].upper(), "left" if file[1].lower() == "left" else "right"
