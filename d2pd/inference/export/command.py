"""``d2pd export``: a trained detector for other programs, checked before it is kept."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from d2pd.atomic_file import partial_path
from d2pd.errors import ConfigError, UserError
from d2pd.inference.export.check import Agreement, check_export
from d2pd.inference.export.check_pictures import pictures_to_check
from d2pd.inference.export.facts import facts_of
from d2pd.inference.export.graph import Size, check_exportable, is_for_one_size, smallest_side
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

USE = {
    "onnx": "onnxruntime.InferenceSession, or any runtime with ONNX's opset 18; channels, output "
    "and classes are in its metadata, get_modelmeta().custom_metadata_map",
    "torch_export": "import torchvision; torch.export.load(FILE, extra_files=facts).module()"
    "(images); with facts = {'d2pd.json': ''} before, it then holds channels, output and classes",
    SCRIPT: "legacy: torch has left TorchScript behind, take torch_export where you can; import "
    "torchvision; torch.jit.load(FILE, _extra_files=facts)(images); with facts = {'d2pd.json': ''} "
    "before, it then holds channels, output and classes",
}


@dataclass(frozen=True)
class Format:
    """How a file is written and read again.

    Attributes:
        suffix: Of the file.
        write: Takes core, path, facts, and the size of the images where it is but one.
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
    check_exportable(predictor.core)
    pictures = pictures_to_check(predictor, args.images, output)
    print(
        f"writing {args.format}, then comparing it on {len(pictures)} pictures: about a minute ...",
        file=sys.stderr,
    )
    agreement = write_checked(predictor, trained.facts, args.format, output, pictures)
    print(f"{output}: {agreement}")
    print(_how_to_use(predictor, args.format, pictures))
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
    size = only_size(predictor, name, pictures)
    if size is not None:
        pictures = [each for each in pictures if each.shape == pictures[0].shape]
    part = partial_path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        kind.write(predictor.core, part, facts_of(predictor, facts), size)
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


def only_size(predictor: Predictor, name: str, pictures: Sequence[Tensor]) -> Size | None:
    """Return the one (height, width) that a file is for, of the first picture; None if it is any.

    It is for one alone as TorchScript, of Swin, and of a model that sees a picture smaller than a
    graph for any size takes, as SSD300 does.
    """
    if name == SCRIPT or is_for_one_size(predictor.core):
        return pictures[0].shape[1], pictures[0].shape[2]
    height, width = pictures[0].shape[1:]
    sides = [side for picture in pictures for side in picture.shape[1:]]
    return (height, width) if min(sides) < smallest_side(predictor.core) else None


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


def _how_to_use(predictor: Predictor, name: str, pictures: Sequence[Tensor]) -> str:
    size = only_size(predictor, name, pictures)
    least = smallest_side(predictor.core)
    number = "1" if name == SCRIPT else "N"
    sides = "H, W" if size is None else f"{size[0]}, {size[1]}"
    which = f"any size from {least} x {least} px on" if size is None else "this size alone"
    resized = facts_of(predictor, {})["resize"]
    return (
        f"input images ({number}, {predictor.channels.total}, {sides}) uint8, {which}; resize "
        f"pictures as the model was trained: {resized}\n{USE[name]}"
    )
