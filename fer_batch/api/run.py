"""The results of a run, as tables and pictures."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fer_batch.api.arguments import SettingsLike, configure, place
from fer_batch.api.progress import Progress, showing
from fer_batch.config import Config, Style
from fer_batch.errors import ConfigError, FerError, StoreError
from fer_batch.results import store, timeline
from fer_batch.settings import validate

# What needs torch or ffmpeg is imported where it is used: looking at tables must not wait for it.
if TYPE_CHECKING:
    from PIL import Image

    from fer_batch.explain.explainer import Method

Names = str | Sequence[str] | None
"""One file of a run, several, or None for all, named as in the tables."""

MOST_FILES = 100
"""Files that a run shows in a notebook."""


class Run:
    """The results of a run.

    It knows its folder and nothing else: whenever it is asked, it reads what is there. Tables come
    as pandas DataFrames. In every method, ``media`` names files as the tables do: one name, a list,
    or None for all; ``settings`` are laid over those with which the run was made (or replace them,
    if they are a `Config`); and ``progress`` is as for `process`.

    All methods raise StoreError when a table cannot be read, or a file is not in the run.

    Attributes:
        folder: The folder of the results, or their URL.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = place(folder)

    def faces(
        self,
        media: Names = None,
        *,
        smooth_s: float = 0.0,
        short: bool = False,
        usable: bool = False,
    ) -> pd.DataFrame:
        """One row for each face in each frame, ordered by media, frame_index and face_index.

        Args:
            media: Files to read.
            smooth_s: Time in seconds over which the probabilities of each track are steadied: see
                `fer_batch.results.timeline.smooth`; 0 gives them as they are.
            short: Also faces of tracks that last less than ``track.min_s``, which are mostly none.
            usable: Only faces that are good enough to classify (column ``is_usable``).
        """
        _check_not_negative("smooth_s", smooth_s)
        names = self._names(media)
        faces = timeline.load(self.folder, media=names, short=short, usable=usable)
        return timeline.smooth(faces, seconds=smooth_s) if smooth_s else faces

    def frames(self, media: Names = None) -> pd.DataFrame:
        """One row for each frame that was looked at, also where there is no face."""
        return timeline.load_frames(self.folder, media=self._names(media))

    def media(self, media: Names = None) -> pd.DataFrame:
        """One row for each input file: what it is, its status, and why it failed."""
        names, files = self._names(media), timeline.load_media(self.folder)
        return files if names is None else files[files["media"].isin(names)].reset_index(drop=True)

    def segments(
        self,
        media: Names = None,
        *,
        min_s: float = 0.0,
        smooth_s: float = 0.5,
        short: bool = False,
        usable: bool = False,
    ) -> pd.DataFrame:
        """Who showed what, from when to when: the times over which a track shows one emotion.

        Args:
            media: Videos to read; still images have no tracks.
            min_s: Shortest segment that is kept, in seconds.
            smooth_s: As for `faces`: without it, many segments last only a moment.
            short: As for `faces`.
            usable: As for `faces`.

        Returns:
            media, track_id, emotion, start_s, end_s, n_faces, confidence (mean), by track and time.
        """
        _check_not_negative("min_s", min_s)
        faces = self.faces(media, smooth_s=smooth_s, short=short, usable=usable)
        return timeline.segments(faces, min_s=min_s)

    def summary(
        self, media: Names = None, *, short: bool = False, usable: bool = False
    ) -> pd.DataFrame:
        """One row for each input file: what was looked at, and what was seen on average.

        Args:
            media: Files to sum up.
            short: As for `faces`.
            usable: As for `faces`.

        Returns:
            media, kind, status, frames, seconds, face_share (of the frames, in [0, 1]), tracks, the
            mean probability of each emotion, and emotion, the strongest of these.
        """
        names = self._names(media)
        return timeline.summary(self.folder, media=names, short=short, usable=usable)

    def problems(self) -> pd.DataFrame:
        """The files that failed, or of which something is missing: media, status, error."""
        files = self.media()
        rows = files.loc[files["status"] != "ok", ["media", "status", "error"]]
        return rows.reset_index(drop=True)

    def show(
        self,
        media: str,
        *,
        at: float = 0.0,
        style: Style | None = None,
        settings: SettingsLike = None,
    ) -> Image.Image:
        """The annotated frame that a player shows at a time, as a picture of Pillow.

        Args:
            media: Name of the file.
            at: Time in seconds, 0 at the start of the video; without meaning for an image.
            style: ``full``, ``minimal``, ``heatmap`` or ``side-by-side``.
            settings: Such as ``{"render.blur": True}``; see the section ``render``.

        Raises:
            RenderError: There is no frame of this file at that time.
            MediaError: The source is gone, has changed, or cannot be read.
            ConfigError: A setting is wrong or unknown.
        """
        from PIL import Image

        from fer_batch.render.still import annotated_frame

        _check_not_negative("at", at)
        self._names(media)
        config = self._config(settings, style)
        return Image.fromarray(annotated_frame(self.folder, config, media, at))

    def render(
        self,
        media: Names = None,
        *,
        style: Style | None = None,
        force: bool = False,
        progress: Progress = False,
        settings: SettingsLike = None,
    ) -> list[Path]:
        """Make annotated copies of videos and images, in the folder ``annotated`` of the run.

        Args:
            media: Files to copy.
            style: ``full``, ``minimal``, ``heatmap`` or ``side-by-side``.
            force: Make again what is up to date.
            progress: As for `process`.
            settings: Such as ``{"render.blur": True}``; see the section ``render``.

        Returns:
            The copies, also those that were up to date.

        Raises:
            RenderError: Files failed: they are named, all others are done.
            ConfigError: A setting is wrong or unknown.
        """
        from fer_batch.render.copies import render

        config, names = self._config(settings, style), self._names(media)
        with showing(progress) as show:
            return render(
                self.folder,
                config,
                media=names,
                force=force,
                on_progress=lambda done: show(done.share, str(done)),
            )

    def sheet(
        self,
        media: Names = None,
        *,
        force: bool = False,
        progress: Progress = False,
        settings: SettingsLike = None,
    ) -> list[Path]:
        """Make contact sheets, in the folder ``sheets`` of the run: all files at a glance.

        Args:
            media: Videos whose sheets are made; None: these and those of the whole run.
            force: Make again what is up to date.
            progress: As for `process`.
            settings: Such as ``{"render.blur": True}``.

        Returns:
            The sheets of the whole run, then one for each video.

        Raises:
            RenderError: Files failed: they are named, all others are shown.
            ConfigError: A setting is wrong or unknown.
        """
        from fer_batch.report.contact_sheets import make_sheets

        config, names = self._config(settings), self._names(media)
        with showing(progress) as show:
            return make_sheets(
                self.folder,
                config,
                media=names,
                force=force,
                on_progress=lambda done: show(done.share, str(done)),
            )

    def report(
        self, media: Names = None, *, progress: Progress = False, settings: SettingsLike = None
    ) -> Path:
        """Write a summary of the run with timelines, into its folder ``report``.

        Args:
            media: Videos whose timelines are drawn; None: those with most faces.
            progress: As for `process`.
            settings: Such as ``{"render.smooth_s": 2}``.

        Returns:
            The summary, a text in Markdown.

        Raises:
            RenderError: A file that is named is no video with frames.
            ConfigError: A setting is wrong or unknown.
        """
        from fer_batch.report.summary import make_report

        config, names = self._config(settings), self._names(media)
        with showing(progress) as show:
            return make_report(
                self.folder,
                config,
                media=names,
                on_progress=lambda done: show(
                    done.share, f"{done.n_files_done:,}/{done.n_files:,} videos"
                ),
            )

    def explain(
        self,
        media: Names = None,
        *,
        emotion: str | None = None,
        method: Method | Sequence[Method] = "gradcam",
        sample: int | None = None,
        progress: Progress = False,
        settings: SettingsLike = None,
    ) -> pd.DataFrame:
        """Explain why the classifier saw what it saw, in pictures and numbers.

        They go into the folder ``explain`` of the run, and replace what an earlier call left there.

        Args:
            media: Files whose faces are explained.
            emotion: Explain this one; None: the strongest of each face.
            method: ``gradcam``, ``gradcam++``, ``occlusion``, ``saliency`` or
                ``integrated-gradients``, or several.
            sample: At most so many faces, chosen at random and always the same. Without it, a long
                run takes very long.
            progress: As for `process`.
            settings: Such as ``{"runtime.device": "cpu"}``.

        Returns:
            Means by emotion and method: see `fer_batch.explain.report.summarise`.

        Raises:
            ExplainError: There is nothing to explain, or files failed: all others are done.
            ConfigError: A setting, the emotion or the method is unknown.
        """
        from fer_batch.explain.explainer import METHODS, Explainer
        from fer_batch.explain.face_sources import FaceSelection, RunFaces
        from fer_batch.explain.report import explain
        from fer_batch.models.card import find_weights
        from fer_batch.models.devices import pick_device

        methods = [method] if isinstance(method, str) else list(dict.fromkeys(method))
        unknown = [name for name in methods if name not in METHODS]
        if unknown:
            raise ConfigError(f"no method is named {unknown[0]!r}: there are {', '.join(METHODS)}")
        _check_not_negative("sample", sample or 0)
        config, names = self._config(settings), self._names(media)
        selection = FaceSelection(media=tuple(names or ()), emotion=emotion, sample=sample)
        weights = find_weights(config.classifier.weights)
        explainer = Explainer(weights, pick_device(config.runtime.device))
        with store.lock(self.folder, shared=True), showing(progress) as show:
            return explain(
                RunFaces(self.folder, config, explainer.card, selection),
                explainer,
                self.folder / "explain",
                methods,
                on_progress=lambda n, n_faces: show(n / n_faces, f"{n:,}/{n_faces:,} faces"),
            )

    def __repr__(self) -> str:
        try:
            files = self.media()
        except FerError:
            return f"Run({str(self.folder)!r}): cannot be read"
        counts = files["status"].value_counts()
        statuses = ", ".join(f"{n:,} {status}" for status, n in counts.items()) or "none yet"
        return (
            f"Run({str(self.folder)!r}): {len(files):,} files ({statuses}), "
            f"{files['n_frames_decoded'].sum():,} frames, {files['n_faces'].sum():,} faces"
        )

    def _repr_html_(self) -> str:
        """The first files of the summary, for a notebook."""
        names = self.media()["media"].tolist()
        table = overview(self.summary(names[:MOST_FILES] or None))
        more = f"<p>and {len(names) - MOST_FILES:,} more</p>" if len(names) > MOST_FILES else ""
        return table.to_html(index=False, border=0) + more

    def _config(self, settings: SettingsLike, style: Style | None = None) -> Config:
        """The settings of the run, with others laid over them."""
        base = validate(Config, store.read_run(self.folder)["config"])
        config = configure(settings, base)
        return configure({"render.style": style}, config) if style else config

    def _names(self, media: Names) -> list[str] | None:
        """The names of files, once it is known that the run has them all."""
        if media is None:
            return None
        names = [media] if isinstance(media, str) else list(media)
        if not names:
            raise StoreError("media: expected the name of a file or more, got an empty list")
        known = timeline.load_media(self.folder)["media"].tolist()
        unknown = [name for name in names if name not in known]
        if unknown:
            name = unknown[0]
            same_name = [each for each in known if each.endswith(f"/{name}")]
            similar = " or ".join((same_name or difflib.get_close_matches(name, known))[:3])
            meant = f" (did you mean {similar}?)" if similar else ""
            raise StoreError(
                f"{self.folder} holds no results of {name!r}{meant}: Run.media() lists all files"
            )
        return names


def overview(summary: pd.DataFrame) -> pd.DataFrame:
    """What `Run.summary` says, in words for people: all columns are text."""
    is_video = summary["kind"] == "video"
    has_frames = summary["frames"] > 0
    rows = summary.to_dict("records")
    columns = {
        "media": summary["media"],
        "status": summary["status"],
        "frames": summary["frames"].map("{:,}".format),
        "seconds": summary["seconds"].map("{:.1f}".format).where(is_video, ""),
        "with a face": summary["face_share"].map("{:.0%}".format).where(has_frames, ""),
        "tracks": summary["tracks"].map(str).where(is_video, ""),
        "mean probabilities": [timeline.strongest(row) for row in rows],
    }
    return pd.DataFrame(columns)


def _check_not_negative(name: str, value: float) -> None:
    if value < 0:
        raise ConfigError(f"{name}: expected 0 or more, got {value}")
