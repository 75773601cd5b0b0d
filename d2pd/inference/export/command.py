"""``d2pd export``: a trained detector for other programs, checked before it is kept."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from d2pd.atomic_file import partial_path
from d2pd.errors import ConfigError, UserError
from d2pd.inference.export.check import Agreement, check_export
from d2pd.inference.export.check_pictures import pictures_to_check
from d2pd.inference.export.facts import facts_of
from d2pd.inference.export.graph import SMALLEST
from d2pd.inference.export.onnx_file import OnnxDetector, check_onnx, write_onnx
from d2pd.inference.export.torch_files import (
    read_exported,
    read_script,
    write_exported,
    write_script,
)
from d2pd.inference.export.torchserve import archive_name, write_torchserve
from d2pd.inference.predictor import Predictor
from d2pd.inference.trained_model import TrainedModel, read_trained_model
from d2pd.output_files import check_free, check_outputs

TORCHSERVE = "torchserve"
SCRIPT = "torchscript"


@dataclass(frozen=True)
class Format:
    """How a file is written and read again.

    Attributes:
        suffix: Of the file.
        write: Takes core, path, facts; for TorchScript the size too.
        read: Gives what detects by the file.
    """

    suffix: str
    write: Callable[..., None]
    read: Callable[[Path], nn.Module]


FORMATS = {
    "onnx": Format(".onnx", write_onnx, OnnxDetector),
    "torch_export": Format(".pt2", write_exported, read_exported),
    SCRIPT: Format(".torchscript.pt", write_script, read_script),
}


def main(args: argparse.Namespace) -> int:
    """Write what ``args.format`` asks for, and say how well it agrees with the model.

    Args:
        args: ``format``, ``weights``, ``config_file``, ``output``, ``images``, ``force``, ``opts``.

    Returns:
        Exit code: 0.

    Raises:
        UserError: If the model cannot be exported, the file does not agree with it, or it cannot
            be written; nothing is then left behind.
    """
    if args.format == "onnx":
        check_onnx()
    trained = read_trained_model(args.weights, args.config_file or "", args.opts)
    weights = Path(trained.cfg.MODEL.WEIGHTS)
    if args.format == TORCHSERVE:
        return _write_folder(trained, args.output or weights.with_name(TORCHSERVE), args.force)
    suffix = FORMATS[args.format].suffix
    output: Path = args.output or weights.with_name(weights.stem + suffix)
    check_outputs([output], [weights])
    check_free([output], force=args.force)
    trained.cfg.MODEL.DEVICE = "cpu"
    predictor = Predictor(trained.cfg, trained.weights, trained.class_names)
    pictures = pictures_to_check(predictor, args.images, output)
    print(
        f"writing {args.format}, then comparing it on {len(pictures)} pictures: about a minute ...",
        file=sys.stderr,
    )
    agreement = write_checked(predictor, trained.facts, args.format, output, pictures)
    print(f"{output}: {agreement}")
    print(_how_to_use(args.format, pictures[0]))
    return 0


def write_checked(
    predictor: Predictor,
    facts: Mapping[str, Any],
    name: str,
    output: Path,
    pictures: Sequence[Tensor],
) -> Agreement:
    """Write a file, compare what it detects with the model, and only then give it its name.

    Args:
        predictor: The model, on the CPU.
        facts: What its checkpoint holds beside the weights.
        name: A key of ``FORMATS``.
        output: File to write; its folder is made.
        pictures: (C, H, W) uint8 as the model takes them, at least one.

    Raises:
        ConfigError: If the model cannot be exported.
        ExportMismatchError: If the file does not detect the same.
        UserError: If it cannot be written.
    """
    kind = FORMATS[name]
    write = kind.write
    if name == SCRIPT:  # for one size: that of the first picture
        height, width = pictures[0].shape[1:]
        write = partial(write, size=(height, width))
        pictures = [each for each in pictures if each.shape == pictures[0].shape]
    part = partial_path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write(predictor.core, part, facts_of(predictor, facts))
        agreement = check_export(
            predictor.core,
            kind.read(part),
            pictures,
            score_floor=predictor.score_floor,
            takes_batches=name != SCRIPT,
        )
        part.replace(output)
    except OSError as error:
        raise UserError(
            f"cannot write {output} ({error.strerror or error}): make room there, or choose "
            "another folder"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return agreement


def _write_folder(trained: TrainedModel, folder: Path, force: bool) -> int:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not force:
        raise ConfigError(f"{folder} is there already: name another --output, or add --force")
    weights = Path(trained.cfg.MODEL.WEIGHTS)
    check_outputs([folder / "weights.pth"], [weights])
    # Refuses a model that cannot be built, or weights that leave a part of it random.
    trained.cfg.MODEL.DEVICE = "cpu"
    Predictor(trained.cfg, trained.weights, trained.class_names)
    trained.cfg.MODEL.DEVICE = "auto"
    paths = write_torchserve(trained, folder, archive_name(weights.parent.name))
    for path in paths:
        print(path)
    if len(paths) == 3:  # without the archive
        print("no .mar: `pip install torch-model-archiver`, then the same command with --force")
    return 0


def _how_to_use(name: str, picture: Tensor) -> str:
    channels, height, width = picture.shape
    any_size = f"any number of images of one size, {SMALLEST} x {SMALLEST} px or more"
    if name == "onnx":
        return (
            f"input images (N, {channels}, H, W) uint8: {any_size}; onnxruntime.InferenceSession, "
            "or any runtime with ONNX's opset 18; input, output and classes are in its metadata"
        )
    if name == "torch_export":
        return (
            f"input images (N, {channels}, H, W) uint8: {any_size}; import torchvision; "
            "torch.export.load(FILE).module()(images)"
        )
    return (
        f"legacy: torch has left TorchScript behind, take torch_export where you can; input "
        f"images (1, {channels}, {height}, {width}) uint8, of this size alone; import torchvision; "
        "torch.jit.load(FILE)(images)"
    )
