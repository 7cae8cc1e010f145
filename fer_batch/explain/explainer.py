"""Maps of the pixels of a face that matter for an emotion, by several methods."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch
from captum.attr import IntegratedGradients, LayerActivation, LayerGradCam, Occlusion, Saliency
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fer_batch.emotions import EMOTIONS, in_order
from fer_batch.errors import ConfigError
from fer_batch.models import weights
from fer_batch.models.networks import build_network
from fer_batch.records import Floats, Ints

Method = Literal["gradcam", "gradcam++", "occlusion", "saliency", "integrated-gradients"]
METHODS: tuple[Method, ...] = get_args(Method)

WINDOW, STRIDE = 1 / 4, 1 / 8
"""Side of the patch with which occlusion covers a part of the crop, and the step between patches;
both as a fraction of the crop's side."""
IG_STEPS = 32
"""Steps of the integral of ``integrated-gradients``."""


class Explainer:
    """A network with the methods that explain it.

    The map of a face does not depend on the other faces of its batch.

    Raises:
        WeightsError: The weights cannot be used.
    """

    def __init__(self, path: Path, device: torch.device, *, batch_size: int = 64) -> None:
        network, self.card = weights.load(path, device)
        self._device = device
        self._batch_size = batch_size
        self._columns = [EMOTIONS.index(name) for name in self.card.classes]
        self._set_network(network)

    def randomised(self, seed: int) -> Explainer:
        """The same explainer with random weights: its maps should be different."""
        other = copy.copy(self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(self.card.network, len(self.card.classes)).eval()
        other._set_network(network.to(self._device).to(memory_format=torch.channels_last))
        return other

    def probs(self, crops: Tensor) -> Floats:
        """Probability of every emotion for each face.

        Args:
            crops: (M, C, S, S) float32, as `crop` makes them.

        Returns:
            (M, 8) float32 in EMOTIONS order, NaN for emotions that the network does not know.
        """
        with torch.inference_mode():
            known = [
                self._probs(batch.to(self._device)).cpu()
                for batch in torch.split(crops, self._batch_size)
            ]
        return in_order(torch.cat(known).numpy(), self.card.classes)

    def scores(self, crops: Tensor, emotion: Ints) -> Floats:
        """Probability of an emotion for each face.

        Args:
            crops: (M, C, S, S) float32, as `crop` makes them.
            emotion: (M,) int64, positions in EMOTIONS of emotions that the network knows.

        Returns:
            (M,) float32 in [0, 1].

        Raises:
            ConfigError: The network does not know one of the emotions.
        """
        return self._in_batches(crops, emotion, self._scores)

    def covered_scores(self, crops: Tensor, emotion: Ints) -> Floats:
        """Probability of an emotion while a grey patch covers a part of the face.

        Args:
            crops: (M, C, S, S) float32, as `crop` makes them.
            emotion: (M,) int64, positions in EMOTIONS of emotions that the network knows.

        Returns:
            (M, K, K) float32 in [0, 1], by row and column of the patch: see `patches`.

        Raises:
            ConfigError: The network does not know one of the emotions.
        """
        window, starts = patches(crops.shape[-1])

        def covered(batch: Tensor, target: Tensor) -> Tensor:
            scores = []
            for top in starts:
                for left in starts:
                    pixels = batch.clone()
                    pixels[..., top : top + window, left : left + window] = 0
                    scores.append(self._scores(pixels, target))
            return torch.stack(scores, dim=1).reshape(-1, len(starts), len(starts))

        return self._in_batches(crops, emotion, covered)

    def maps(self, crops: Tensor, emotion: Ints, method: Method) -> Floats:
        """How much each pixel matters for an emotion.

        Args:
            crops: (M, C, S, S) float32, as `crop` makes them.
            emotion: (M,) int64, positions in EMOTIONS of emotions that the network knows.
            method: ``gradcam`` (Selvaraju et al., 2017) and ``gradcam++`` (Chattopadhay et al.,
                2018) at the last activation that has the last convolution's resolution; never
                negative. ``occlusion`` (Zeiler & Fergus, 2014): how far the probability falls when
                a patch is made grey, averaged over the patches that cover a pixel. ``saliency``
                (Simonyan et al., 2014): the size of the gradient. ``integrated-gradients``
                (Sundararajan et al., 2017): of the probability, starting from a grey picture.

        Returns:
            (M, S, S) float32.

        Raises:
            ConfigError: The network does not know one of the emotions.
        """
        methods = {
            "gradcam": self._gradcam,
            "gradcam++": self._gradcam_plus_plus,
            "occlusion": self._occlusion,
            "saliency": self._saliency,
            "integrated-gradients": self._integrated_gradients,
        }
        if not len(crops):
            return torch.empty(0, *crops.shape[2:]).numpy()
        return self._in_batches(crops, emotion, methods[method])

    def activations(self, crops: Tensor) -> list[Floats]:
        """The last feature maps of each resolution at which the network convolves.

        Args:
            crops: (M, C, S, S) float32, as `crop` makes them.

        Returns:
            (M, channels, height, width) float32 of each resolution, from the input to the output.
        """
        with torch.inference_mode():
            batches = [
                LayerActivation(self._network, self._layers).attribute(batch.to(self._device))
                for batch in torch.split(crops, self._batch_size)
            ]
        return [torch.cat(layer).cpu().numpy() for layer in zip(*batches, strict=True)]

    def _set_network(self, network: nn.Module) -> None:
        side = self.card.input_size_px
        blank = torch.zeros(1, len(self.card.mean), side, side, device=self._device)
        self._network = network.requires_grad_(False)
        self._layers = _last_activations(network, blank)

    def _in_batches(
        self, crops: Tensor, emotion: Ints, compute: Callable[[Tensor, Tensor], Tensor]
    ) -> Floats:
        unknown = sorted({EMOTIONS[code] for code in emotion if code not in self._columns})
        if unknown:
            raise ConfigError(
                f"{self.card.name} does not know {', '.join(unknown)}, only "
                f"{', '.join(self.card.classes)}"
            )
        target = torch.tensor([self._columns.index(code) for code in emotion], dtype=torch.int64)
        found = [
            compute(batch.to(self._device), columns.to(self._device)).detach().cpu()
            for batch, columns in zip(
                torch.split(crops, self._batch_size),
                torch.split(target, self._batch_size),
                strict=True,
            )
        ]
        values: Floats = torch.cat(found).numpy()
        return values

    def _probs(self, crops: Tensor) -> Tensor:
        logits: Tensor = self._network(crops)
        return torch.softmax(logits / self.card.temperature, dim=1)

    @torch.inference_mode()
    def _scores(self, crops: Tensor, target: Tensor) -> Tensor:
        return self._probs(crops).gather(1, target[:, None])[:, 0]

    def _gradcam(self, crops: Tensor, target: Tensor) -> Tensor:
        cam = LayerGradCam(self._network, self._layers[-1])
        maps: Tensor = cam.attribute(crops.requires_grad_(), target, relu_attributions=True)
        return _enlarged(maps, crops)

    def _gradcam_plus_plus(self, crops: Tensor, target: Tensor) -> Tensor:
        activation, gradient = self._activation_and_gradient(crops, target)
        positive = gradient.relu()
        # The paper's weights, with one square of the gradient cancelled out where it is positive.
        total = activation.sum(dim=(2, 3), keepdim=True)
        weight = (positive / (2 + total * positive)).sum(dim=(2, 3), keepdim=True)
        return _enlarged((weight * activation).sum(dim=1, keepdim=True).relu(), crops)

    def _activation_and_gradient(self, crops: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Activation of the last layer and the logit's gradient there, (M, channels, H, W) each."""
        kept: list[Tensor] = []

        def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
            kept.append(output)
            return output.clone()  # a later layer may work in place

        handle = self._layers[-1].register_forward_hook(keep)
        try:
            logits = self._network(crops.requires_grad_())
        finally:
            handle.remove()
        (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), kept)
        return kept[0].detach(), gradient

    def _occlusion(self, crops: Tensor, target: Tensor) -> Tensor:
        channels, side = crops.shape[1], crops.shape[2]
        window, starts = patches(side)
        with torch.inference_mode():
            drop: Tensor = Occlusion(self._probs).attribute(
                crops,
                sliding_window_shapes=(channels, window, window),
                strides=(channels, starts.step, starts.step),
                baselines=0,
                target=target,
                perturbations_per_eval=max(1, self._batch_size // len(crops)),
            )
        return drop[:, 0]

    def _saliency(self, crops: Tensor, target: Tensor) -> Tensor:
        gradient: Tensor = Saliency(self._network).attribute(
            crops.requires_grad_(), target, abs=False
        )
        return gradient.sum(dim=1).abs()  # all channels hold the same grey picture

    def _integrated_gradients(self, crops: Tensor, target: Tensor) -> Tensor:
        share: Tensor = IntegratedGradients(self._probs).attribute(
            crops, 0, target, n_steps=IG_STEPS, internal_batch_size=self._batch_size
        )
        return share.sum(dim=1)


def patches(side_px: int) -> tuple[int, range]:
    """The grid of patches with which occlusion covers a crop.

    Args:
        side_px: Side of the crop.

    Returns:
        Side of a patch, and the first pixel of each patch along an axis; no patch leaves the crop.
    """
    window, stride = max(1, round(WINDOW * side_px)), max(1, round(STRIDE * side_px))
    return window, range(0, side_px - window + 1, stride)


def _enlarged(maps: Tensor, crops: Tensor) -> Tensor:
    return interpolate(maps, crops.shape[2:], mode="bilinear", align_corners=False)[:, 0]


@torch.inference_mode()
def _last_activations(network: nn.Module, blank: Tensor) -> list[nn.Module]:
    """For each resolution at which the network convolves, the module that gives its last maps.

    Of all modules whose output has this resolution it is the one that ends last: after
    normalisation, the sum with a shortcut, and the rectifier, before any pooling.
    """
    outputs: list[tuple[nn.Module, torch.Size]] = []

    def record(module: nn.Module, _: object, output: Tensor) -> None:
        if output.ndim == 4:
            outputs.append((module, output.shape[2:]))

    handles = [module.register_forward_hook(record) for module in network.modules()]
    try:
        network(blank)
    finally:
        for handle in handles:
            handle.remove()
    last = {size: module for module, size in outputs}
    sizes = dict.fromkeys(size for module, size in outputs if isinstance(module, nn.Conv2d))
    return [last[size] for size in sizes]
