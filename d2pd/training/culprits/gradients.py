"""The gradients of a model, looked at together."""

import torch
from torch import nn


def gradient_norm(model: nn.Module) -> float:
    """Return the norm of all gradients together; not finite where one of them is not."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def name_bad_gradients(model: nn.Module) -> str:
    """Return in which parameters the gradient is not finite, the first three by name."""
    names = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    if not names:
        return "its norm is beyond float32"
    return f"{len(names)} parameters: {', '.join(names[:3])}"
