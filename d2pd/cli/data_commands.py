"""Commands about data: synth, show, audit, split, convert."""

import argparse
from pathlib import Path

from d2pd.cli.words import Commands, count


def add_data_commands(commands: Commands) -> None:
    """Add the parsers of these commands."""
    synth = commands.add_parser("synth", help="draw a KAIST-layout dataset to try things on")
    _add_synth(synth)

    show = commands.add_parser(
        "show", help="draw the first training samples as the model gets them"
    )
    _add_show(show)

    audit = commands.add_parser(
        "audit",
        help="look a label file through, and its pictures, before training",
        description="Find the labels and pictures that would stop, ruin or blur a training. Exit "
        "code 0: nothing found, 1: findings.",
    )
    _add_audit(audit)

    split = commands.add_parser(
        "split",
        help="divide the images of a label file into folds",
        description="Divide the images of a label file into folds, for cross-validation: "
        "DATASETS.REGISTER.<name>.FOLDS takes the file, `d2pd ablate --folds` trains on each.",
    )
    _add_split(split)

    convert = commands.add_parser(
        "convert",
        help="labels of one format to another, with a count of what gets lost",
        description="Convert labels. KAIST's original ones (text or XML) are a folder with "
        "set00/V000/I00000.txt or .xml, the others a file.",
    )
    _add_convert(convert)


def _add_synth(synth: argparse.ArgumentParser) -> None:
    synth.add_argument("--output", type=Path, required=True, help="folder to draw into")
    synth.add_argument("--train", type=int, default=400, help="training pairs (%(default)s)")
    synth.add_argument("--test", type=int, default=60, help="held-out pairs (%(default)s)")
    synth.add_argument("--seed", type=int, default=0, help="same seed, same bytes (%(default)s)")
    synth.add_argument("--boxes", type=Path, help="KAIST JSON: draw onto these labels, as they are")
    synth.add_argument("--faults", action="store_true", help="plant boxes without area or outside")
    synth.set_defaults(run=_synth)


def _add_show(show: argparse.ArgumentParser) -> None:
    show.add_argument("--config-file", required=True, metavar="FILE")
    instead = show.add_mutually_exclusive_group()
    instead.add_argument(
        "--anchors",
        action="store_true",
        help="instead: how well SSDSeg's anchors fit the training labels, as table and picture",
    )
    instead.add_argument(
        "--heat-maps",
        action="store_true",
        help="instead: what the segmentation layers of the run in OUTPUT_DIR, or of MODEL.WEIGHTS, "
        "see in test images",
    )
    show.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides")
    show.set_defaults(run=_show)


def _add_label_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--format",
        choices=["auto", "kaist", "coco", "csv"],
        default="auto",
        help="of the file (%(default)s: by its content)",
    )
    _add_label_options(parser)


def _add_label_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="(those of the file)")
    parser.add_argument(
        "--box-format", choices=["xyxy", "xywh"], default="xyxy", help="of a CSV (%(default)s)"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME",
        help="of a CSV: its columns in order, such as class filename x1 y1 x2 y2 (its header)",
    )


def _add_audit(audit: argparse.ArgumentParser) -> None:
    _add_label_file(audit)
    audit.add_argument("--images", type=Path, metavar="DIR", help="look at the pictures too")
    audit.add_argument("--out", type=Path, metavar="DIR", help="for audit.json and index.html")
    audit.add_argument(
        "--write-clean", type=Path, metavar="FILE", help="write a copy without what can be mended"
    )
    audit.add_argument("--force", action="store_true", help="--write-clean over an existing file")
    audit.add_argument(
        "--min-box-size",
        type=float,
        default=1.0,
        metavar="PX",
        help="narrower or lower boxes are tiny (%(default)s)",
    )
    audit.add_argument(
        "--max-pictures",
        type=count,
        default=12,
        metavar="N",
        help="findings of a rule to show as pictures, at most (%(default)s)",
    )
    audit.add_argument(
        "--config-file",
        metavar="FILE",
        help="of a training on this file: with --weights, images of high loss are listed too",
    )
    audit.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint; see above")
    audit.set_defaults(run=_audit)


def _add_split(split: argparse.ArgumentParser) -> None:
    _add_label_file(split)
    split.add_argument("--folds", type=count, required=True, metavar="K")
    split.add_argument(
        "--by",
        choices=["video", "image"],
        default="video",
        help="what stays together (%(default)s: set and video of KAIST, else the image's folder)",
    )
    split.add_argument(
        "--stratify", action="store_true", help="balance classes, day and night over the folds"
    )
    split.add_argument("--seed", type=count, default=0, metavar="N", help="(%(default)s)")
    split.add_argument("--output", type=Path, required=True, metavar="FOLDS.json")
    split.set_defaults(run=_split)


def _add_convert(convert: argparse.ArgumentParser) -> None:
    convert.add_argument("input", type=Path, metavar="INPUT", help="label file, or folder of them")
    convert.add_argument(
        "--format",
        choices=["auto", "kaist", "coco", "csv", "bbgt", "xml"],
        default="auto",
        help="of INPUT (%(default)s: by its content)",
    )
    _add_label_options(convert)
    convert.add_argument("--to", choices=["kaist", "coco", "csv"], required=True)
    convert.add_argument("--output", type=Path, required=True, metavar="FILE")
    convert.add_argument("--force", action="store_true", help="write over an existing file")
    convert.set_defaults(run=_convert)


def _synth(args: argparse.Namespace) -> int:
    from d2pd.data.synthetic import draw_dataset

    draw_dataset(
        args.output,
        num_train=args.train,
        num_test=args.test,
        seed=args.seed,
        boxes=args.boxes,
        faults=args.faults,
    )
    print(f"drawn into {args.output}")
    return 0


def _show(args: argparse.Namespace) -> int:
    if args.anchors:
        return _show_anchors(args)
    if args.heat_maps:
        return _show_heat_maps(args)
    from d2pd.config import load_config
    from d2pd.data.loader import build_train_dataset
    from d2pd.data.registration import register_from_config
    from d2pd.training.pictures import write_train_batch
    from d2pd.training.preflight import check_datasets

    cfg = load_config(args.config_file, args.opts)
    register_from_config(cfg)
    check_datasets(cfg, cfg.DATASETS.TRAIN)
    print(write_train_batch(cfg, build_train_dataset(cfg), Path(cfg.OUTPUT_DIR)))
    return 0


def _show_anchors(args: argparse.Namespace) -> int:
    from d2pd.config import load_config
    from d2pd.data.registration import register_from_config
    from d2pd.reporting.anchor_fit_command import show_anchor_fit

    cfg = load_config(args.config_file, args.opts)
    register_from_config(cfg)
    print(show_anchor_fit(cfg))
    return 0


def _show_heat_maps(args: argparse.Namespace) -> int:
    from d2pd.config import load_config
    from d2pd.data.registration import register_from_config
    from d2pd.inference.heat_maps import write_heat_maps

    cfg = load_config(args.config_file, args.opts)
    register_from_config(cfg)
    print(write_heat_maps(cfg, args.opts))
    return 0


def _audit(args: argparse.Namespace) -> int:
    from d2pd.data.audit.command import main as run

    return run(args)


def _split(args: argparse.Namespace) -> int:
    from d2pd.data.split_command import main as run

    return run(args)


def _convert(args: argparse.Namespace) -> int:
    from d2pd.data.convert.command import main as run

    return run(args)
