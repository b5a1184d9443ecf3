"""What dask's workers do with files of certain names; they preload this module in tests.

fatal.png ends each worker that begins to clean it, once.png the first one. slow.png takes forever;
a file called `slow` tells that it was begun.
"""

import os
import time
from pathlib import Path

from tools.scans import cluster


def clean_file(clean, source, path, options):
    begun = source.with_suffix(".begun")
    if source.name == "fatal.png" or (source.name == "once.png" and not begun.exists()):
        begun.touch()
        os._exit(1)
    if source.name == "slow.png":
        Path(source.parent.parent, "slow").touch()
        time.sleep(1_000)
    return real(clean, source, path, options)


# Dask runs a preloaded module twice, in the same namespace.
if "DASK_DISTRIBUTED__WORKER__PRELOAD" in os.environ and "real" not in globals():
    real, cluster.clean_file = cluster.clean_file, clean_file
