"""The lanes: what they use, that they work at the same time, and that they clean up."""

import threading

import cv2
import numpy as np
import pytest
import torch

from fer_batch.config import load
from fer_batch.errors import ConfigError
from fer_batch.faces.crop import crop
from fer_batch.faces.detectors import build_detector
from fer_batch.models.classifier import Classifier
from fer_batch.pipeline import lanes
from fer_batch.pipeline.lanes import Lanes, Resources
from fer_batch.pipeline.plan import Plan, make_plan
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import Faces, Floats, Frames
from tests.support.detectors import use_detector
from tests.support.portraits import portrait

TOGETHER_S = 20


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("lanes")
    cv2.imwrite(str(folder / "one.png"), portrait(1))
    return make_plan([folder], folder / "out", load(None))


def means(*settings: str, **runtime: object) -> Resources:
    values = [f"runtime.{name}={value}" for name, value in runtime.items()]
    return Resources.of(load(None, [*settings, *values]))


def start(plan: Plan, **runtime: object) -> Lanes:
    return Lanes(plan, means(**{"device": "cpu"} | runtime), Stopwatch())


def test_gaps_are_filled_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = means(device="cpu", threads=6)
    assert (cpu.lanes, cpu.readers, cpu.batch_size) == (6, 3, 16)
    assert means(device="cpu", threads=1).readers == 1
    chosen = means(device="cpu", threads=5, readers=7, batch_size=9, buffer_mb=11)
    assert chosen == Resources((torch.device("cpu"),), 5, 7, 9, 11)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpus = means("detector.name=retinaface", threads=16)
    assert [str(device) for device in gpus.devices] == ["cuda:0", "cuda:1"]
    assert (gpus.lanes, gpus.readers, gpus.batch_size) == (2 * lanes.LANES_PER_GPU, 16, 512)
    assert means("detector.name=retinaface", device="cuda:1").lanes == lanes.LANES_PER_GPU
    assert means("detector.name=haar", threads=16).lanes == 16  # they detect, the GPU classifies
    with pytest.raises(ConfigError, match="cuda:2 is not there: 2 CUDA"):
        means(device="cuda:0,cuda:2")


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_answers_are_those_of_the_foreground(plan: Plan, device: str) -> None:
    frames = [portrait(n, number) for number, n in enumerate((1, 0, 3, 2, 0, 1))]
    faces = build_detector(plan.config.detector, torch.device("cpu")).detect(frames)
    crops = crop(frames, faces, plan.card)
    probs = Classifier("default", torch.device("cpu"), batch_size=64, flip=False)(crops)
    with start(plan, device=device, threads=3, batch_size=2) as working:
        found = working.detect(frames).result()
        np.testing.assert_array_equal(found.frame_row, faces.frame_row)
        np.testing.assert_array_equal(found.box_px, faces.box_px)
        np.testing.assert_allclose(working.classify(crops).result(), probs, atol=1e-5)
        assert len(working.detect([]).result()) == 0


def test_detection_and_classification_go_on_at_the_same_time(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(3)
    n_threads = []

    def meet() -> None:
        meeting.wait(TOGETHER_S)
        n_threads.append((torch.get_num_threads(), cv2.getNumThreads()))

    def detect(frames: Frames) -> Faces:
        meet()
        return Faces.join([], [])

    def classify(self: Classifier, crops: torch.Tensor) -> Floats:
        meet()
        return np.empty((0, 8), np.float32)

    use_detector(monkeypatch, detect)
    monkeypatch.setattr(Classifier, "__call__", classify)
    before = torch.get_num_threads(), cv2.getNumThreads()
    with start(plan, threads=3) as working:
        faces = working.detect([portrait(0), portrait(0)])
        probs = working.classify(torch.zeros(1, 1, 48, 48))
        faces.result(), probs.result()
    assert n_threads == [(1, 1)] * 3
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


def test_leaving_early_gives_up_what_was_not_begun(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(frames: Frames) -> Faces:
        began.set()
        go_on.wait(TOGETHER_S)
        return Faces.join([], [])

    use_detector(monkeypatch, slow)
    with start(plan, threads=1) as working:
        faces = working.detect([portrait(0)] * 50)
        assert began.wait(TOGETHER_S)
        threading.Timer(0.1, go_on.set).start()
    assert faces.is_done()
    assert not [t for t in threading.enumerate() if t.name.startswith("fer_batch-lane")]


def test_error_of_a_lane_is_that_of_the_result(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(frames: Frames) -> Faces:
        raise RuntimeError("a mistake in the detector")

    use_detector(monkeypatch, fail)
    with start(plan, threads=2) as working, pytest.raises(RuntimeError, match="a mistake"):
        working.detect([portrait(0)] * 3).result()
