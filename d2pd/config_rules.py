"""Which values of configuration keys are allowed, and which keys have an effect."""

ALLOWED_VALUES: dict[str, tuple[str, ...]] = {
    "SOLVER.OPTIMIZER": ("SGD", "Adam", "AdamW"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "INPUT.MODALITY": ("visible", "lwir", "both"),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler",),
    "MODEL.BACKBONE.LWIR_FILTERS": ("average", "red", "green", "blue"),
    "MODEL.SSD.FUSION": ("early", "halfway"),
    "MODEL.SSD.NMS_TYPE": ("hard", "soft_linear", "soft_gaussian"),
    "MODEL.SSD.SEG.OTHER_SIZES": ("paint", "background", "ignore"),
    "MODEL.SSD.SEG.PIXEL_REDUCTION": ("mean", "sum"),
    "MODEL.SSD.SEG.MAP_REDUCTION": ("mean", "sum"),
    "SOLVER.UNIT": ("iter", "epoch"),
    "SOLVER.AMP.PRECISION": ("fp16", "bf16"),
    "EARLY_STOPPING.MODE": ("auto", "min", "max"),
    "BEST_CHECKPOINT.MODE": ("auto", "min", "max"),
    "MISS_RATE.MODE": ("strict", "compat"),
    "NON_FINITE.POLICY": ("abort", "skip"),
}

LOWEST_VALUES: dict[str, int] = {
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.BASE_LR": 0,
    "SOLVER.MOMENTUM": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "DATASETS.FOLD": 0,
    "DATASETS.MIN_BOX_SIZE": 0,
    "DATASETS.SYNTHETIC.NUM_TRAIN": 1,
    "DATASETS.SYNTHETIC.NUM_TEST": 1,
    "DATASETS.SYNTHETIC.SEED": 0,
    "SOLVER.ACCUMULATE": 1,
    "VALIDATION.PERIOD": -1,
    "VALIDATION.MAX_IMAGES": 0,
    "EARLY_STOPPING.PATIENCE": 0,
    "EARLY_STOPPING.MIN_DELTA": 0,
    "EARLY_STOPPING.WARMUP_ITERS": 0,
    "CHECKPOINT.KEEP": 0,
    "CHECKPOINT.MINUTES": 0,
    "CHECKPOINT.STOP_AFTER_MINUTES": 0,
    "NON_FINITE.BUDGET": 0,
    "TEST.DETECTIONS_PER_IMAGE": 1,
    "MODEL.SSD.L2_NORM_SCALE": 0,
    "MODEL.SSD.NEGATIVE_RATIO": 0,
    "MODEL.SSD.SMOOTH_L1_BETA": 0,
    "MODEL.SSD.BBOX_REG_LOSS_WEIGHT": 0,
    "MODEL.SSD.SCORE_THRESH_TEST": 0,
    "MODEL.SSD.TOPK_CANDIDATES_TEST": 1,
    "MODEL.SSD.NMS_THRESH_TEST": 0,
    "MODEL.SSD.SOFT_NMS_SIGMA": 0,
}

HIGHEST_VALUES: dict[str, int] = {
    "INPUT.MIN_SIZE_TEST": 20_000,  # px: far beyond any memory, so a slip, or a stranger's file
    "INPUT.MAX_SIZE_TEST": 20_000,
    "MODEL.SSD.SCORE_THRESH_TEST": 1,
    "MODEL.SSD.TOPK_CANDIDATES_TEST": 1_000_000,  # as many places are taken up, boxes or none
    "MODEL.SSD.NMS_THRESH_TEST": 1,
}

HONOURED: dict[str, str] = {
    "": "CUDNN_BENCHMARK DETERMINISTIC OUTPUT_DIR SEED VERSION",
    "BEST_CHECKPOINT.": "METRIC MODE",
    "CHECKPOINT.": "KEEP MINUTES MIRROR_DIR STOP_AFTER_MINUTES",
    "DATALOADER.": "ASPECT_RATIO_GROUPING FILTER_EMPTY_ANNOTATIONS NUM_WORKERS SAMPLER_TRAIN",
    "DATASETS.": "FINAL_TEST FOLD MIN_BOX_SIZE ROOT TEST TRAIN",
    "DATASETS.SYNTHETIC.": "NUM_TEST NUM_TRAIN SEED",
    "EARLY_STOPPING.": "DIVERGENCE_THRESHOLD METRIC MIN_DELTA MODE PATIENCE WARMUP_ITERS",
    "INPUT.": "FIXED_SIZE FORMAT MAX_SIZE_TEST MAX_SIZE_TRAIN MIN_SIZE_TEST MIN_SIZE_TRAIN "
    "MIN_SIZE_TRAIN_SAMPLING MODALITY RANDOM_FLIP",
    "INPUT.AUG.": "ALBUMENTATIONS IOU_CROP MIN_VISIBLE PHOTOMETRIC RESIZED_CROP_RATIO "
    "RESIZED_CROP_SCALE ROTATION SCALE_JITTER ZOOM_OUT",
    "INPUT.CROP.": "ENABLED SIZE TYPE",
    "MISS_RATE.": "IOU_THRESHOLD MODE",
    "NON_FINITE.": "BUDGET POLICY",
    "SOLVER.": "ACCUMULATE BASE_LR BASE_LR_END BIAS_LR_FACTOR CHECKPOINT_PERIOD GAMMA "
    "IMS_PER_BATCH LR_SCHEDULER_NAME MAX_ITER MOMENTUM NESTEROV OPTIMIZER RESCALE_INTERVAL STEPS "
    "UNIT WARMUP_FACTOR WARMUP_ITERS WARMUP_METHOD WEIGHT_DECAY WEIGHT_DECAY_BIAS "
    "WEIGHT_DECAY_NORM",
    "SOLVER.AMP.": "ENABLED PRECISION",
    "SOLVER.CLIP_GRADIENTS.": "CLIP_TYPE CLIP_VALUE ENABLED NORM_TYPE",
    "TEST.": "DETECTIONS_PER_IMAGE EVAL_PERIOD EXPECTED_RESULTS",
    "VALIDATION.": "DATASET MAX_IMAGES PERIOD",
    "WANDB.": "ENABLED NAME PROJECT",
}
"""Keys outside MODEL that have an effect; MODEL belongs to the engine, which checks its own, and
those of ``OPEN_GROUPS`` are checked where they are read.

``DATALOADER.ASPECT_RATIO_GROUPING`` is accepted and has no effect: grouping would make the order
of the samples depend on more than (seed, k).
"""

SSD_HONOURS = (
    "MODEL.CHANNELS_LAST",
    "MODEL.DEVICE",
    "MODEL.META_ARCHITECTURE",
    "MODEL.WEIGHTS",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.BACKBONE.",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.ROI_HEADS.NUM_CLASSES",
    "MODEL.SSD.",
)
"""Keys below MODEL that SSDSeg reads; a name that ends in a dot stands for all behind it."""

OF_BACKBONES = {
    "MODEL.TORCHVISION.": (True, "build_torchvision_fpn_backbone"),
    "MODEL.RESNETS.": (False, "build_torchvision_fpn_backbone"),
}
"""Groups below MODEL that a backbone alone reads, or for False, that it does not read."""

SET_IN_BASES = ("MODEL.RESNETS.OUT_FEATURES",)
"""Keys that base configs set for all of their backbones."""

OPEN_GROUPS = ("DATASETS.REGISTER.", "MISS_RATE.SETTINGS.", "MISS_RATE.SPLITS.")
"""Groups whose keys are names that the user gives."""

SWITCHED_KEYS: dict[str, tuple[str, str | None]] = {
    "SOLVER.AMP.PRECISION": ("SOLVER.AMP.ENABLED", None),
    "INPUT.AUG.RESIZED_CROP_RATIO": ("INPUT.AUG.RESIZED_CROP_SCALE", None),
    "EARLY_STOPPING.PATIENCE": ("EARLY_STOPPING.METRIC", None),
    "EARLY_STOPPING.DIVERGENCE_THRESHOLD": ("EARLY_STOPPING.METRIC", None),
    "MODEL.SSD.SOFT_NMS_SIGMA": ("MODEL.SSD.NMS_TYPE", "soft_gaussian"),
    "MODEL.SSD.SEG.KERNEL_SIZE": ("MODEL.SSD.SEG.MAPS", None),
    "MODEL.SSD.SEG.OTHER_SIZES": ("MODEL.SSD.SEG.MAPS", None),
    "MODEL.SSD.SEG.PIXEL_REDUCTION": ("MODEL.SSD.SEG.MAPS", None),
    "MODEL.SSD.SEG.MAP_REDUCTION": ("MODEL.SSD.SEG.MAPS", None),
}
"""Keys that have no effect, and are refused when changed, unless another one has the value, or,
for None, is not off."""
