"""``python -m runtime`` is the command ``run``."""

import sys

from runtime.cli import main

sys.exit(main())
