"""What the five scripts share and what teaches nothing: data, noise, files, plots, command line.

Importing this package loads TensorFlow with its start-up messages kept off the console, so a
script imports it before keras.
"""

import os
import re
import sys
import tempfile


class UserError(Exception):
    """Bad input. The message is the one line the user reads: what is wrong, and the way out."""


# Matches information lines, what TensorFlow says where there is no GPU driver at all, and a remark
# of its that is wrong as well as harmless. Everything else, say a driver that fails to load, is
# passed on.
_START_UP_NOISE = re.compile(
    rb"^WARNING: All log messages before absl|^I0000 |^I \d|: I tensorflow/"
    rb"|failed call to cuInit: .*(?:UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
    rb"|Unable to register cu\w+ factory"
    rb"|oneDNN supports DT_INT32 only on platforms with AVX-512"
    rb"|^To enable the following instructions|^Skipping registering GPU devices"
)


def _import_tensorflow_quietly():
    """Import tensorflow with file descriptor 2 held back, then print what was not noise.

    The lines come from C++, before any logging level applies, so sys.stderr can't filter them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # 1: warnings and errors
    with tempfile.TemporaryFile() as held_back:
        stderr = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        try:
            import tensorflow

            # Looks for GPUs, and the first gradient of an UpSampling layer has a remark to make.
            with tensorflow.GradientTape() as tape:
                ones = tensorflow.Variable(tensorflow.ones((1, 2, 2, 1)))
                repeated = tensorflow.repeat(ones, 2, axis=1)
            tape.gradient(repeated, ones)
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held_back.seek(0)
            for line in held_back:
                if not _START_UP_NOISE.search(line):
                    os.write(2, line)


_import_tensorflow_quietly()
