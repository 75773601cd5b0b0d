"""The state of every random generator as plain data."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def random_state() -> State:
    """Return the state of the generators of torch, its GPUs in use, numpy and Python.

    Returns:
        Tensors, numbers and lists only, which ``weights_only`` reading accepts.
    """
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(on_gpus),
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "words": torch.tensor(words), "gauss": next_gauss},
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set every generator back to what ``random_state`` returned.

    A GPU that the state or this machine does not have is left out.
    """
    torch.set_rng_state(state["torch"].cpu())
    for index, on_gpu in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(on_gpu.cpu(), index)
    of_numpy, of_python = state["numpy"], state["python"]
    np.random.set_state(
        (
            "MT19937",
            of_numpy["keys"].numpy().astype(np.uint32),
            of_numpy["position"],
            of_numpy["has_gauss"],
            of_numpy["gauss"],
        )
    )
    words = tuple(of_python["words"].tolist())
    random.setstate((of_python["version"], words, of_python["gauss"]))
