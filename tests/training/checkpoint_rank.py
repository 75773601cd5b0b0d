"""One of two gloo processes that resume together: ``python checkpoint_rank.py RANK FOLDER``.

Writes what it met as ``<rank>.json``.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from checkpoint_toys import Run

from d2pd.errors import UserError


def resume(folder: Path, mirror: Path) -> list[object]:
    run = Run(folder, seed=dist.get_rank(), mirror_dir=str(mirror))
    try:
        run.checkpointer.resume()
    except UserError as error:
        return [type(error).__name__, str(error)]
    return [run.iter, run.model.a.weight.sum().item()]


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    found = {
        "mirror": resume(folder / "out", folder / "mirror"),
        "nothing": resume(folder / "none", folder / "none2"),
        "damaged": resume(folder / "damaged", folder / "none2"),
    }
    run = Run(folder / "saved").train(1)
    run.save()
    dist.barrier()
    found["saved"] = sorted(os.listdir(folder / "saved"))
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()  # neither hangs up while the other still talks
    # Torch now and then aborts when it takes its own gloo threads down.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
