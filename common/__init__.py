"""What the scripts share: data, noise, metrics, figures, files, the command line, the run folder.

Importing this package imports TensorFlow with its start-up messages kept off the console, so a
script imports it before keras.
"""

import contextlib
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

# Information lines, and what TensorFlow says where there is no GPU. All else is passed on, for
# example a GPU driver that fails to load.
_START_UP_NOISE = re.compile(
    rb"^WARNING: All log messages before absl|^I0000 |^I \d|: I tensorflow/"
    rb"|failed call to cuInit: .*(?:UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
    rb"|Unable to register cu\w+ factory"
    rb"|oneDNN supports DT_INT32 only on platforms with AVX-512"
    rb"|^To enable the following instructions|^Skipping registering GPU devices"
)


def answer_signals(handler):
    """Answer Ctrl-C, SIGTERM and SIGHUP with a handler, but for those that are ignored (nohup)."""
    for name in {"SIGINT", "SIGTERM", "SIGHUP"} & set(dir(signal)):  # Windows has no SIGHUP
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), handler)


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, and the way out."""


@contextlib.contextmanager
def without_start_up_noise():
    """Hold back file descriptor 2, then print what was not TensorFlow's start-up noise.

    The lines come from C++, before any logging level applies: sys.stderr can't filter them.
    """
    try:
        held_back = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:  # all disks are full
        yield
        return
    stderr = os.dup(2)
    with held_back:
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

# Ctrl-C while a script is still importing: nothing is begun, so it ends at once. An exception would
# get lost, or turn into another one, in the libraries' own imports.
_console = os.dup(2)


def _end(*_):
    os.write(_console, b"\nInterrupted.\n")
    os._exit(130)


_started = getattr(sys.modules["__main__"], "__file__", None)
_ours = _started and Path(_started).resolve().parent == Path(__file__).resolve().parent.parent
if _ours:
    answer_signals(_end)

try:
    import matplotlib  # noqa: F401  Keras does, too
except ValueError as error:
    if not _ours:
        raise
    _reason = str(error).partition(";")[0]  # all backends there are would follow
    _line = f"Matplotlib can't start ({_reason}); see to MPLBACKEND and matplotlibrc"
    print(f"{Path(_started).name}: error: {_line}", file=sys.stderr)
    sys.exit(2)

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever other projects of the user take
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # 1: warnings and errors
with without_start_up_noise():
    import keras
    import tensorflow  # noqa: F401

keras.config.set_image_data_format("channels_last")  # whatever keras.json says
keras.config.set_floatx("float32")
