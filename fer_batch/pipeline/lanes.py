"""Threads, called lanes, that detect and classify, and keep every device busy.

On a CPU each lane does a task of its own in one thread, so that no thread waits for another and no
core runs two. A GPU has a few lanes with a CUDA stream each: while the batch of one lane is
computed, another lane prepares and copies its batch, and a third reads its results.
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
    """What a run uses: ``config.runtime`` with a value for everything that was left empty."""

    devices: tuple[torch.device, ...]
    lanes: int
    readers: int
    batch_size: int
    buffer_mb: float

    @classmethod
    def of(cls, config: Config) -> Resources:
        """Choose what suits the machine, where the configuration leaves it open.

        Raises:
            ConfigError: A device does not exist.
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
    """The results of several tasks, joined in order."""

    def __init__(self, futures: Sequence[Future[T]], join: Callable[[list[T]], T]) -> None:
        self._futures, self._join = futures, join

    def is_done(self) -> bool:
        """Whether `result` would not have to wait."""
        return all(future.done() for future in self._futures)

    def wait(self) -> None:
        """Wait until all tasks are done."""
        wait(self._futures)

    def result(self) -> T:
        """Wait, and join the results. An error of a task is raised here."""
        return self._join([future.result() for future in self._futures])


@dataclass(frozen=True, slots=True)
class _Models:
    """The models that are loaded on one device."""

    device: torch.device
    detector: Detector
    classifier: Classifier


class Lanes:
    """Detection and classification in the background.

    A context manager. Inside the block, Torch and OpenCV use one thread per call. Leaving the block
    stops the lanes and drops the tasks that have not started.

    Args:
        plan: Says which models to load.
        resources: Says on which devices, and in how many lanes.
        watch: Measures ``detect`` and ``classify``.

    Raises:
        ConfigError, DetectorError, WeightsError: A model cannot be loaded.
    """

    def __init__(self, plan: Plan, resources: Resources, watch: Stopwatch) -> None:
        self._batch_size = resources.batch_size
        models = [_load(plan, device, resources.batch_size) for device in resources.devices]
        self._batch_frames = models[0].detector.batch_frames
        self.n_frames = 2 * resources.lanes * self._batch_frames
        """Frames that keep every lane busy while the next ones are prepared."""
        self._free_models: SimpleQueue[_Models] = SimpleQueue()
        for lane in range(resources.lanes):
            self._free_models.put(models[lane % len(models)])
        self._thread_local = threading.local()
        self._pool = ThreadPoolExecutor(resources.lanes, "fer_batch-lane", self._init_worker)
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
        """Start to find the faces of frames; see `Detector.detect`."""
        n = self._batch_frames
        batches = [frames[first : first + n] for first in range(0, len(frames), n)]

        def start(batch: Sequence[Bytes]) -> Future[Faces]:
            return self._submit("detect", lambda models: models.detector.detect(batch))

        sizes = [len(batch) for batch in batches]
        return Pending([start(batch) for batch in batches], lambda each: Faces.join(each, sizes))

    def classify(self, crops: Tensor) -> Pending[Floats]:
        """Start to classify one crop or more; see `Classifier`."""

        def start(batch: Tensor) -> Future[Floats]:
            return self._submit("classify", lambda models: models.classifier(batch))

        batches = torch.split(crops, self._batch_size)
        return Pending([start(batch) for batch in batches], np.concatenate)

    def _init_worker(self) -> None:
        """Give the current thread the models, and on a GPU the stream, that it uses from now on."""
        torch.set_num_threads(1)
        self._thread_local.models = self._free_models.get()
        device = self._thread_local.models.device
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]

    def _submit(self, stage: str, task: Callable[[_Models], T]) -> Future[T]:
        def run() -> T:
            with self._watch.time(stage):
                return task(self._thread_local.models)

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
        torch.cuda.synchronize(device)  # the lanes' streams do not wait for the stream that loaded
    return models
