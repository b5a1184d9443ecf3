"""explorer.html: a latent plane as one page, which opens without a server or network.

The page is explorer.html beside this file, filled in with a fine grid of decoded images, which it
blends, and with codes and pictures of test images.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from common import files, plotting
from tools import latents, small_images

TEMPLATE = Path(__file__).with_suffix(".html")
SIDE = 48  # decoded images along a side of the plane
MAX_IMAGES = 2_000  # test images in the page
COLUMNS = 50  # of the mosaic of test images


def write(path, encoder, decoder, dataset):
    """Write the page of a trained encoder and decoder, whole or not at all.

    The encoder is (n, height, width, 1) to [z_mean, z_log_var, z], the decoder (n, latent_dim) to
    (n, height, width, 1), values in [0, 1], the dataset a `data.Images`.
    """
    page = fill(encoder, decoder, dataset)
    with files.write_whole(path, files.is_run_folder(path.parent)) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    print(f"Wrote {path}", flush=True)


def fill(encoder, decoder, dataset):
    """Return the text of the page; the arguments are those of `write`."""
    shown = slice(MAX_IMAGES)
    codes = encoder.predict(dataset.x_test[shown], batch_size=500, verbose=0)[0]
    axes = np.sort(np.argsort(-codes.var(0), kind="stable")[:2])  # the most active dimensions
    codes = codes[:, axes]
    limit = max(2.5, 1.05 * float(np.abs(codes).max()))
    grid = np.zeros((SIDE**2, decoder.input_shape[1]), "float32")  # the other dimensions are zero
    grid[:, axes] = latents.plane_codes(limit, SIDE)
    task = "Find an image that turns into one of another class."
    if dataset.name in small_images.CLOTHES:
        task = "Find a bag that turns into a shoe."
    content = {
        "dataset": str(dataset),
        "task": task,
        "classes": list(dataset.class_names),
        "colors": plotting.COLORS,
        "size": list(dataset.x_test.shape[1:3]),
        "latentDim": decoder.input_shape[1],
        "axes": (axes + 1).tolist(),
        "limit": limit,
        "side": SIDE,
        "grid": data_uri(latents.decode(decoder, grid), SIDE),
        "columns": COLUMNS,
        "pictures": data_uri(dataset.x_test[shown], COLUMNS),
        "codes": codes.round(3).tolist(),
        "labels": np.asarray(dataset.y_test[shown]).tolist(),
    }
    # Names of classes may be those of the user's folders: none of them can end the element.
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("page-data", text)


def data_uri(images, columns):
    """Return images, shape (n, height, width, 1) in [0, 1], as one WebP picture in a data URI."""
    pixels = np.round(plotting.mosaic(images, columns) * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
