"""`python -m podcluster` is `podcluster`."""

import sys

from podcluster.cli import main

sys.exit(main())
