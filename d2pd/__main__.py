"""``python -m d2pd`` is the ``d2pd`` command, without installing the package."""

import sys

from d2pd.cli import main

sys.exit(main())
