"""Every configuration key of d2pd, once: default and unit; ``config_rules`` has what is allowed.

Detectron2's keys keep their names and meanings.
"""

from typing import Any

from d2pd.d2 import CfgNode, get_cfg

SEED = 42

REGISTER_DEFAULTS: dict[str, Any] = {
    "FORMAT": "",  # kaist | coco | csv | synthetic
    "ANNOTATIONS": "",  # label file; relative paths start at the dataset root
    "IMAGES": "",  # folder that the image names in the label file start from
    "CLASSES": [],  # names in the order of their ids; empty: from the file (kaist: person)
    "BOX_FORMAT": "xyxy",  # csv only: xyxy | xywh
    "COLUMNS": [],  # csv only: column names in file order, where the file has no header
    "IMAGE_LIST": "",  # kaist only: text file that selects and orders the images
    "INCLUDE": [],  # kaist only: keep these videos alone, such as set00/V003
    "EXCLUDE": [],  # kaist only: leave these videos out
    "FOLDS": "",  # file of `d2pd split`; its DATASETS.FOLD is held out
    "FOLD_PART": "",  # with FOLDS: train | test, all the other folds or the one held out
}
"""Keys of one entry of ``DATASETS.REGISTER.<name>``."""

EASYDICT_KEYS: dict[str, str] = {
    "gpu": "MODEL.DEVICE",
    "output": "OUTPUT_DIR",
    "mirror": "CHECKPOINT.MIRROR_DIR",
    "checkpoint_minutes": "CHECKPOINT.MINUTES",
    "stop_after_minutes": "CHECKPOINT.STOP_AFTER_MINUTES",
    "datasets": "DATASETS.ROOT",
    "weights": "MODEL.WEIGHTS",
    "seed": "SEED",
    "max_iter": "SOLVER.MAX_ITER",
    "warmup_iters": "SOLVER.WARMUP_ITERS",
    "learning_rate": "SOLVER.BASE_LR",
    "ims_per_batch": "SOLVER.IMS_PER_BATCH",
    "batch_size_per_image": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "num_classes": "MODEL.ROI_HEADS.NUM_CLASSES",
    "eval_period": "TEST.EVAL_PERIOD",
    "mask_on": "MODEL.MASK_ON",
    "resume": "--resume",
    "overwrite": "--overwrite",
    "eval_only": "--eval-only",
    "num_machines": "--num-machines",
}
"""Names of a notebook's ``EasyDict`` and the configuration key or command-line flag of each."""


def add_d2pd_config(cfg: CfgNode) -> None:
    """Add d2pd's keys and defaults to a Detectron2 configuration, in place.

    Args:
        cfg: What ``get_cfg()`` returned, of either engine.
    """
    cfg.SEED = SEED
    cfg.MODEL.DEVICE = "auto"  # auto | cpu | cuda | cuda:N; auto takes a GPU where there is one
    cfg.MODEL.CHANNELS_LAST = False  # layout of pixels; maybe quicker, rounded otherwise
    cfg.DATASETS.ROOT = ""  # empty: $D2PD_DATASETS, else the folder "datasets"
    cfg.DATASETS.REGISTER = CfgNode(new_allowed=True)
    cfg.DATASETS.FINAL_TEST = ()  # evaluated once, when training is over; never to choose by
    cfg.DATASETS.FOLD = 0  # the one held out, of datasets that have FOLDS
    cfg.DATASETS.MIN_BOX_SIZE = 1.0  # px; boxes narrower or lower than this are dropped
    cfg.DATASETS.SYNTHETIC = CfgNode({"NUM_TRAIN": 400, "NUM_TEST": 60, "SEED": 0})
    cfg.INPUT.MODALITY = "visible"  # visible | lwir | both; see data.modality for the channels
    cfg.INPUT.FIXED_SIZE = ()  # (height, width) px that every image is resized to; empty: by edges
    cfg.MODEL.BACKBONE.LWIR_FILTERS = "average"  # of RGB filters, for a thermal first layer
    cfg.SOLVER.OPTIMIZER = "SGD"
    cfg.SOLVER.UNIT = "iter"  # iter | epoch: of every length and period below
    cfg.SOLVER.ACCUMULATE = 1  # parts that a batch is divided into, to save memory
    cfg.SOLVER.AMP.PRECISION = "fp16"  # fp16 | bf16, where SOLVER.AMP.ENABLED
    cfg.DETERMINISTIC = False  # on a GPU: the same bits each time, at a cost
    cfg.MODEL.TORCHVISION = CfgNode(
        {
            "NAME": "swin_t",  # of BACKBONE.NAME build_torchvision_fpn_backbone: any classifier
            "OUT_NODES": [],  # of its maps, one for each stride; empty: found
            "FREEZE_NORM": False,  # batch norm keeps its weights and statistics
        }
    )
    _add_augmentation_config(cfg)
    _add_ssd_config(cfg)
    _add_loop_config(cfg)


def _add_augmentation_config(cfg: CfgNode) -> None:
    """Add what training images go through besides Detectron2's crop, resize and flip."""
    cfg.INPUT.AUG = CfgNode(
        {
            "PHOTOMETRIC": False,  # visible: brightness, contrast, hue, ...; lwir: contrast
            "ZOOM_OUT": 1.0,  # shrink every other image by up to this factor, on a canvas
            "IOU_CROP": False,  # SSD's crop by overlap with the labels
            "RESIZED_CROP_SCALE": (),  # (low, high) share of the area cut out; above 1: zoom out
            "RESIZED_CROP_RATIO": (0.8, 1.2),  # (low, high) width / height, relative to the image
            "ROTATION": 0.0,  # degrees at most, to either side
            "SCALE_JITTER": (),  # (low, high) factor on the size that the resize gives
            "MIN_VISIBLE": 0.25,  # share of a label's area that must stay inside the image
            "ALBUMENTATIONS": "",  # YAML file of transforms of pixels, for those who have it
        }
    )


def _add_ssd_config(cfg: CfgNode) -> None:
    """Add the keys of ``MODEL.META_ARCHITECTURE: SSDSeg``; sizes in px of the network input."""
    cfg.MODEL.SSD = CfgNode(
        {
            # Maps behind conv4_3 and conv7: [1x1 channels, 3x3 channels, stride, padding]
            "EXTRA_LAYERS": [
                [256, 512, 2, 1],
                [128, 256, 2, 1],
                [128, 256, 1, 0],
                [128, 256, 1, 0],
            ],
            "EXTRA_SQUARE_SIZES": [],  # a list for each map: anchors of ratio 1 besides SIZES
            "L2_NORM_SCALE": 20.0,  # initial, on conv4_3; 0: not normalised
            "SYNC_BN": False,  # True: batch norm over the images of all processes
            "FUSION": "halfway",  # where INPUT.MODALITY is both
            "IOU_THRESHOLD": 0.5,  # from which an anchor learns a label
            "NEGATIVE_RATIO": 3.0,  # hard negatives to a positive, in each image
            "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),  # factors on x, y, w, h deltas
            "SMOOTH_L1_BETA": 1.0,  # 0: L1
            "BBOX_REG_LOSS_WEIGHT": 1.0,
            "SCORE_THRESH_TEST": 0.001,  # near 0: a miss rate needs the weak detections too
            "TOPK_CANDIDATES_TEST": 1000,  # best boxes of an image that go into the NMS
            "NMS_THRESH_TEST": 0.45,
            "NMS_TYPE": "hard",
            "SOFT_NMS_SIGMA": 0.5,  # of soft_gaussian
        }
    )
    cfg.MODEL.SSD.SEG = CfgNode(
        {
            "MAPS": [],  # a flag for each map: True adds a segmentation layer; empty: none
            "KERNEL_SIZE": 1,  # 1: one 1x1 convolution; 3: 3x3, then 1x1
            "OTHER_SIZES": "paint",  # labels of a size that a map does not detect
            "PIXEL_REDUCTION": "mean",  # of the pixels of a map
            "MAP_REDUCTION": "sum",  # of the maps
            "MAP_WEIGHTS": [],  # a factor for each map of MAPS that is True; empty: 1
        }
    )


def _add_loop_config(cfg: CfgNode) -> None:
    """Add the keys of validation loss, early stopping, checkpoints and guards."""
    cfg.VALIDATION = CfgNode(
        {
            "PERIOD": -1,  # iterations; -1: that of TEST.EVAL_PERIOD; 0: only after the last
            "DATASET": "",  # empty: the first of DATASETS.TEST
            "MAX_IMAGES": 0,  # evenly spread over the dataset; 0: all
        }
    )
    cfg.EARLY_STOPPING = CfgNode(
        {
            "METRIC": "",  # any logged one, such as val/total_loss; empty: never stop early
            "MODE": "auto",  # min | max | auto: from the name
            "PATIENCE": 5,  # evaluations without a better value
            "MIN_DELTA": 0.0,  # what a value must be better by, in the metric's unit
            "WARMUP_ITERS": 0,  # evaluations before this iteration do not use up patience
            "DIVERGENCE_THRESHOLD": None,  # stop at once at a value worse than this
        }
    )
    cfg.BEST_CHECKPOINT = CfgNode(
        {
            "METRIC": (),  # empty: AP of the first of DATASETS.TEST, else val/total_loss
            "MODE": "auto",
        }
    )
    cfg.CHECKPOINT = CfgNode(
        {
            "KEEP": 3,  # newest numbered checkpoints to keep; 0: all
            "MINUTES": 0,  # save also when this time has passed since the last; 0: never
            "MIRROR_DIR": "",  # a second folder that gets a copy, such as a mounted Drive
            "STOP_AFTER_MINUTES": 0,  # save and stop after this time; 0: no limit
        }
    )
    cfg.NON_FINITE = CfgNode(
        {
            "POLICY": "abort",  # abort | skip: what a step that is not finite does to the run
            "BUDGET": 10,  # skipped steps of a run, at most
        }
    )
    _add_miss_rate_config(cfg)
    cfg.WANDB = CfgNode({"ENABLED": False, "PROJECT": "d2pd", "NAME": ""})


def _add_miss_rate_config(cfg: CfgNode) -> None:
    """Add the keys of the miss rate; without SETTINGS it is measured on KAIST data alone."""
    cfg.MISS_RATE = CfgNode(
        {
            "MODE": "strict",  # strict | compat: the rules; see evaluation.miss_rate
            "IOU_THRESHOLD": 0.5,  # overlap from which a detection finds a label
        }
    )
    # <name>: HEIGHT [least, most] px, OCCLUSION [0, 1, 2], BOUNDS [x1, y1, x2, y2] px of the image;
    # none: the seven of KAIST
    cfg.MISS_RATE.SETTINGS = CfgNode(new_allowed=True)
    # <name>: first parts of the image names, such as [set06, set07]; none: KAIST's day and night
    cfg.MISS_RATE.SPLITS = CfgNode(new_allowed=True)


def default_config() -> CfgNode:
    """Return Detectron2's defaults with d2pd's keys added."""
    cfg = get_cfg()
    add_d2pd_config(cfg)
    return cfg
