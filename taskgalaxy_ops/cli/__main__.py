"""`python -m taskgalaxy_ops.cli`."""

import sys

from taskgalaxy_ops.cli import main

sys.exit(main())
