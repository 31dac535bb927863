"""A worker process: `python -m inferometer.load`, started by the fleet, with its job on standard input."""

import sys

from inferometer.load.worker import main

sys.exit(main())
