"""What dask's workers do with files of certain names; they preload this module in tests.

fatal.png ends each worker that begins to clean it, once.png the first one. slow.png takes forever;
a file called `slow` tells that it was begun.
"""

import os
import time
from pathlib import Path

from tools.scans import cluster

real = cluster.clean_file


def clean_file(clean, source, path, options):
    once = source.with_name("once.begun")
    if source.name == "fatal.png" or (source.name == "once.png" and not once.exists()):
        once.touch()
        os._exit(1)
    if source.name == "slow.png":
        Path(source.parent.parent, "slow").touch()
        time.sleep(1_000)
    return real(clean, source, path, options)


if "DASK_DISTRIBUTED__WORKER__PRELOAD" in os.environ and real.__module__ != __name__:
    cluster.clean_file = clean_file
