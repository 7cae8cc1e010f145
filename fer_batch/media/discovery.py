"""Find the videos and still images in files and folders, local ones or behind URLs."""

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
"""Trash, thumbnails and resource forks that operating systems put beside media."""
OUTPUT_FILES = frozenset({".lock", "run.json"})
"""One of them stands in the output folder of a run, beside the folder ``faces``."""

_DISFA_FOLDER = re.compile(r"videos?_(left|right)camera", re.IGNORECASE)
_DISFA_FILE = re.compile(r"(left|right)video(SN\d{3})_comp", re.IGNORECASE)


def find(inputs: Sequence[Path]) -> list[MediaFile]:
    """Every video and image among ``inputs``: files, and folders searched to their depths.

    Folders are searched by file name extension. Hidden and temporary files, and the output
    folders of earlier runs, are passed over; a file that was named itself is always taken, as a
    video where its extension is unknown. A file that can be reached by several paths (named
    twice, linked) counts once. The order is that of ``media`` and does not depend on the order
    of ``inputs``.

    Raises:
        MediaError: An input does not exist, or a folder cannot be read; or local files and URLs, or
            URLs without a common folder, are mixed.
        ConfigError: The protocol of a URL is not known, or its package is missing.
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
    """The file that a row of the media table is about.

    Raises:
        MediaError: It is gone, cannot be reached, or is not the same any more.
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
    """The folder that ``media`` is relative to: the inputs' common parent, absolute.

    One folder is its own root; one file lies in its root.

    Raises:
        MediaError: There are no inputs, or one cannot be reached.
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
    """What the file name extension says; None when it is not one of a medium."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "image" if suffix in IMAGE_SUFFIXES else None


def _absolute(path: Path) -> Path:
    # Not resolved: the names that the user sees and gave are the names in the tables.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Media files below ``folder``, links followed, no folder twice."""
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
        if _is_passed_over(entry.name):
            continue
        if is_folder:
            yield from _walk(entry, seen)
        elif _is_medium(entry):
            yield entry


def _is_passed_over(name: str) -> bool:
    return name.startswith(TEMPORARY_PREFIXES) or name in FOREIGN_FOLDERS


def _is_medium(path: PurePath) -> bool:
    suffixes = map(str.lower, path.suffixes)
    return kind_of(path) is not None and TEMPORARY_SUFFIXES.isdisjoint(suffixes)


def _is_output(entries: Sequence[tuple[Path, bool]]) -> bool:
    """Whether a folder holds the tables of an earlier run."""
    names = {(entry.name, is_folder) for entry, is_folder in entries}
    return ("faces", True) in names and any((name, False) in names for name in OUTPUT_FILES)


def _add(path: Path, root: Path, found: dict[tuple[int, int], MediaFile]) -> None:
    # A dangling link is kept: decoding will say what is wrong with it.
    status = path.stat() if path.exists() else path.lstat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        return
    subject, camera = _disfa(path)
    file = MediaFile(
        path=path,
        # Names in an unknown encoding must fit into UTF-8 tables.
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
    """What `find` gives, of URLs alone: a listing of each, without a request for any folder."""
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
    """Those that `_walk` would take of the same files in a local folder."""
    paths = [(PurePosixPath(entry.name), entry) for entry in entries]
    with_faces = [path for path, _ in paths if "faces" in path.parts]
    holds_faces = {
        folder.parent for path in with_faces for folder in path.parents if folder.name == "faces"
    }
    outputs = {path.parent for path, _ in paths if path.name in OUTPUT_FILES} & holds_faces
    for path, entry in paths:
        if (
            _is_medium(path)
            and not any(map(_is_passed_over, path.parts))
            and outputs.isdisjoint(path.parents)
        ):
            yield entry


def _disfa(path: PurePath) -> tuple[str | None, Literal["left", "right"] | None]:
    """Subject and camera of a DISFA video, ``Videos_LeftCamera/LeftVideoSN001_comp.avi``."""
    file = _DISFA_FILE.fullmatch(path.stem)
    if not file or not _DISFA_FOLDER.fullmatch(path.parent.name):
        return None, None
    return file[2].upper(), "left" if file[1].lower() == "left" else "right"
