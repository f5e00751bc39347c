"""Two optimizers in one: orthogonalised momentum (Muon) for the inner matrices, Adam for embeddings and norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Newton-Schulz for the nearest orthogonal matrix: these factors converge quickly, and roughly is good enough.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrix, roughly, for each of a stack of matrices."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x.mT if tall else x


class Muon:
    """Matrices of one shape are handled as one stack, which is what makes it cheap on a CPU."""

    def __init__(self, weights: list[nn.Parameter], momentum: float = 0.95, decay: float = 0.02) -> None:
        self.momentum, self.decay = momentum, decay
        shapes = {tuple(weight.shape) for weight in weights}
        self.stacks = [[weight for weight in weights if tuple(weight.shape) == shape] for shape in sorted(shapes)]
        self.moving = [torch.zeros(len(stack), *stack[0].shape) for stack in self.stacks]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for stack, moving in zip(self.stacks, self.moving, strict=True):
            gradient = torch.stack([weight.grad for weight in stack if weight.grad is not None])
            moving.lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp(moving, self.momentum))
            rows, columns = stack[0].shape
            scale = rate * max(1.0, rows / columns) ** 0.5
            for weight, change in zip(stack, update.unbind(), strict=True):
                weight.mul_(1 - rate * self.decay).sub_(change, alpha=scale)


class Optimizer:
    def __init__(self, model: nn.Module, peak: float) -> None:
        inner = {
            name: weight for name, weight in model.named_parameters() if name.startswith("blk.") and weight.dim() == 2
        }
        self.outer = [weight for name, weight in model.named_parameters() if name not in inner]
        self.peak = peak
        self.muon = Muon(list(inner.values()))
        self.adam = torch.optim.AdamW(self.outer, lr=peak, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(self, pace: float) -> None:
        """One step at this fraction of the highest rates; gradients are used up."""
        torch.nn.utils.clip_grad_norm_(self.outer, 1.0)
        self.adam.param_groups[0]["lr"] = self.peak * pace
        self.adam.step()
        self.muon.step(self.peak * 6 * pace)
        for weight in (*self.outer, *(weight for stack in self.muon.stacks for weight in stack)):
            weight.grad = None
