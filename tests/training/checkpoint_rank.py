"""One of two processes that resume together; see ``two_ranks``."""

import os
from pathlib import Path

import torch.distributed as dist
from checkpoint_toys import Run
from two_ranks import answer

from d2pd.errors import UserError


def resume(folder: Path, mirror: Path) -> list[object]:
    run = Run(folder, seed=dist.get_rank(), mirror_dir=str(mirror))
    try:
        run.checkpointer.resume()
    except UserError as error:
        return [type(error).__name__, str(error)]
    return [run.iter, run.model.a.weight.sum().item()]


def scenarios(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {
        "mirror": resume(folder / "out", folder / "mirror"),
        "nothing": resume(folder / "none", folder / "none2"),
        "damaged": resume(folder / "damaged", folder / "none2"),
    }
    run = Run(folder / "saved").train(1)
    run.save()
    dist.barrier()
    found["saved"] = sorted(os.listdir(folder / "saved"))
    return found


if __name__ == "__main__":
    answer(scenarios)
