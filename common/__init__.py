"""What the scripts share: data, noise, metrics, figures, files, the command line, the run folder.

Importing this package imports TensorFlow with its start-up messages kept off the console, so a
script imports it before keras.
"""

import contextlib
import os
import re
import sys
import tempfile

# Information lines, and what TensorFlow says where there is no GPU. All else is passed on, for
# example a GPU driver that fails to load.
_START_UP_NOISE = re.compile(
    rb"^WARNING: All log messages before absl|^I0000 |^I \d|: I tensorflow/"
    rb"|failed call to cuInit: .*(?:UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
    rb"|Unable to register cu\w+ factory"
    rb"|oneDNN supports DT_INT32 only on platforms with AVX-512"
    rb"|^To enable the following instructions|^Skipping registering GPU devices"
)


def _short_on_ctrl_c(kind, error, traceback):
    """Show no traceback where Ctrl-C comes during the imports, before a script catches it."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nInterrupted.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _short_on_ctrl_c


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, and the way out."""


@contextlib.contextmanager
def without_start_up_noise():
    """Hold back file descriptor 2, then print what was not TensorFlow's start-up noise.

    The lines come from C++, before any logging level applies: sys.stderr can't filter them.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held_back.seek(0)
            for line in held_back:
                if not _START_UP_NOISE.search(line):
                    os.write(2, line)


# A stream that was closed by whoever started this is opened again, on nothing. Otherwise the next
# file that is opened takes its number, and TensorFlow's messages end up in it.
while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
os.close(descriptor)
sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # 1: warnings and errors
with without_start_up_noise():
    import tensorflow  # noqa: F401
