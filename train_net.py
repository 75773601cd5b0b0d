"""Train or evaluate a detector: ``python train_net.py --config-file configs/... KEY VALUE ...``."""

import sys

from d2pd.cli import train

if __name__ == "__main__":
    sys.exit(train())
