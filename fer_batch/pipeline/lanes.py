"""Threads that detect and classify, and keep every device busy.

On a CPU each lane works at a task of its own, in one thread: no thread waits for another, and no
core has two to run. A GPU has a few lanes with a stream each: while a batch of one is computed,
that of another is prepared and copied, and what came out of a third is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from fer_batch.config import Config, cpu_threads
from fer_batch.faces.detectors import Detector, build_detector, find_detector
from fer_batch.models.classifier import Classifier
from fer_batch.models.devices import pick_devices
from fer_batch.pipeline.plan import Plan
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import Bytes, Faces, Floats

T = TypeVar("T")

LANES_PER_GPU = 4


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run uses: ``config.runtime`` with every gap filled."""

    devices: tuple[torch.device, ...]
    lanes: int
    readers: int
    batch_size: int
    buffer_mb: float

    @classmethod
    def of(cls, config: Config) -> Resources:
        """Fill the gaps with what suits the machine.

        Raises:
            ConfigError: A device is not there.
        """
        runtime = config.runtime
        devices = pick_devices(runtime.device)
        threads = cpu_threads(runtime)
        n_gpus = sum(device.type == "cuda" for device in devices)
        detects_on_gpu = n_gpus and find_detector(config.detector.name).uses_gpu
        return cls(
            devices=devices,
            lanes=LANES_PER_GPU * n_gpus if detects_on_gpu else threads,
            readers=runtime.readers or (threads if detects_on_gpu else (threads + 1) // 2),
            batch_size=runtime.batch_size or (512 if n_gpus else 16),
            buffer_mb=runtime.buffer_mb or 2048 * n_gpus or 256,
        )


class Pending(Generic[T]):
    """What comes out of several tasks, joined in their order."""

    def __init__(self, futures: Sequence[Future[T]], join: Callable[[list[T]], T]) -> None:
        self._futures, self._join = futures, join

    def is_done(self) -> bool:
        """Whether `result` would come at once."""
        return all(future.done() for future in self._futures)

    def wait(self) -> None:
        """Return when all is done."""
        wait(self._futures)

    def result(self) -> T:
        """The whole; an error of a task is raised."""
        return self._join([future.result() for future in self._futures])


@dataclass(frozen=True, slots=True)
class _Models:
    """What one device has loaded."""

    device: torch.device
    detector: Detector
    classifier: Classifier


class Lanes:
    """Detection and classification in the background.

    A context manager. Torch and OpenCV use one thread per call inside it; leaving it stops the
    lanes and gives up what they have not begun.

    Args:
        plan: Says what to load.
        resources: On which devices, in how many lanes.
        watch: Counts ``detect`` and ``classify``.

    Raises:
        ConfigError, DetectorError, WeightsError: What a device needs cannot be loaded.
    """

    def __init__(self, plan: Plan, resources: Resources, watch: Stopwatch) -> None:
        self._batch_size = resources.batch_size
        models = [_load(plan, device, resources.batch_size) for device in resources.devices]
        self._batch_frames = models[0].detector.batch_frames
        self.n_frames = 2 * resources.lanes * self._batch_frames
        """Frames that keep every lane busy while more are made ready."""
        self._seats: SimpleQueue[_Models] = SimpleQueue()
        for lane in range(resources.lanes):
            self._seats.put(models[lane % len(models)])
        self._seat = threading.local()
        self._pool = ThreadPoolExecutor(resources.lanes, "fer_batch-lane", self._sit_down)
        self._watch = watch

    def __enter__(self) -> Lanes:
        self._threads_before = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before[0])
        cv2.setNumThreads(self._threads_before[1])

    def detect(self, frames: Sequence[Bytes]) -> Pending[Faces]:
        """Begin to find the faces of frames; see `Detector.detect`."""
        n = self._batch_frames
        batches = [frames[start : start + n] for start in range(0, len(frames), n)]

        def begin(batch: Sequence[Bytes]) -> Future[Faces]:
            return self._submit("detect", lambda models: models.detector.detect(batch))

        sizes = [len(batch) for batch in batches]
        return Pending([begin(batch) for batch in batches], lambda each: Faces.join(each, sizes))

    def classify(self, crops: Tensor) -> Pending[Floats]:
        """Begin to classify one crop or more; see `Classifier`."""

        def begin(batch: Tensor) -> Future[Floats]:
            return self._submit("classify", lambda models: models.classifier(batch))

        batches = torch.split(crops, self._batch_size)
        return Pending([begin(batch) for batch in batches], np.concatenate)

    def _sit_down(self) -> None:
        torch.set_num_threads(1)
        self._seat.models = self._seats.get()
        device = self._seat.models.device
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]

    def _submit(self, stage: str, work: Callable[[_Models], T]) -> Future[T]:
        def run() -> T:
            with self._watch.time(stage):
                return work(self._seat.models)

        return self._pool.submit(run)


def _load(plan: Plan, device: torch.device, batch_size: int) -> _Models:
    memory_gb = plan.config.runtime.device_memory_gb
    if device.type == "cuda" and memory_gb:
        share = memory_gb * 1e9 / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    models = _Models(
        device,
        build_detector(plan.config.detector, device),
        Classifier(
            plan.config.classifier.weights,
            device,
            batch_size=batch_size,
            flip=plan.config.classifier.flip,
        ),
    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # the lanes' streams do not wait for the one that loaded
    return models
