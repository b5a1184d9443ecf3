"""explorer.html: a trained decoder and its latent space as one page, without server or network.

The page is `explorer.html` beside this file. It is filled in with the decoder as a list of layers,
with weights in half precision, and with codes and pictures of test images.
"""

import base64
import hashlib
import io
import itertools
import json
import re
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image

from common import files, plotting

TEMPLATE = Path(__file__).with_suffix(".html")
MOST_BYTES = 3_000_000  # of a page
MOST_IMAGES = 2_000  # test images in it
MOST_DIMENSIONS = 32  # with a slider each
COLUMNS = 50  # of the sheet of pictures
# {activation: what it multiplies negative values by}
SLOPES = {
    keras.activations.linear: 1.0,
    keras.activations.relu: 0.0,
    keras.activations.leaky_relu: 0.2,
}


class UnknownLayerError(ValueError):
    """A decoder that the page can't compute."""


def write(path, decoder, dataset, codes):
    """Write the page of a decoder, whole or not at all; say so where it can't be made.

    Args:
        path: of the page.
        decoder: (n, latent_dim) to (n, height, width, 1), values in [0, 1].
        dataset: `data.Images`.
        codes: z_mean of its test images, shape (n, latent_dim).
    """
    try:
        page = fill(decoder, dataset, codes)
    except UnknownLayerError as error:
        print(f"{path} is left out: {error}", flush=True)
        return
    with files.write_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    print(f"Wrote {path}", flush=True)


def fill(decoder, dataset, codes):
    """Return the text of the page; the arguments are those of `write`.

    It holds as many of the first MOST_IMAGES test images as fit into MOST_BYTES.

    Raises:
        UnknownLayerError: see `describe`, or the decoder alone is too large.
    """
    shown = np.sort(np.argsort(-codes.var(0), kind="stable")[:MOST_DIMENSIONS])
    described, weights = describe(decoder, shown)
    summary = dataset.summary()
    content = {
        "dataset": f"{summary['name']} ({summary['source']}), {summary['test']:,} test images",
        "classes": list(dataset.class_names),
        "colours": plotting.TEN_COLOURS,
        "dimensions": (shown + 1).tolist(),
        "latent_dim": codes.shape[1],
        "axes": np.sort(np.argsort(-codes[:, shown].var(0), kind="stable")[:2]).tolist(),
        "layers": described,
        "weights": _half(np.concatenate([weight.ravel() for weight in weights])),
    }
    count = min(MOST_IMAGES, len(codes))
    while count:
        some = slice(count)
        content |= {
            "codes": _half(codes[some, shown]),
            "labels": np.asarray(dataset.y_test[some]).tolist(),
            "pictures": _sheet(dataset.x_test[some]),
            "columns": COLUMNS,
        }
        page = _page(content)
        if len(page.encode()) < MOST_BYTES:
            return page
        count = count * 3 // 4
    raise UnknownLayerError("the decoder is too large for a page")


def describe(decoder, shown=None):
    """Return (layers, weights) of a decoder, which must be a chain of layers.

    Args:
        decoder: a Keras model, (n, latent_dim) to (n, height, width, 1).
        shown: numbers of the latent dimensions that the page has; all others are zero. None: all.

    Returns:
        A list of dicts, which `explorer.html` explains, and a list of arrays: of each layer that
        has weights its kernel, of shape (inputs, outputs) or (height, width, inputs, outputs), and
        its bias.

    Raises:
        UnknownLayerError: a layer, or a setting of one, is not among those that the page computes.
    """
    chain = [layer for layer in decoder.layers if not isinstance(layer, layers.InputLayer)]
    if any(after.input is not before.output for before, after in itertools.pairwise(chain)):
        raise UnknownLayerError("its layers are not a chain")
    if len(decoder.output_shape) != 4 or decoder.output_shape[-1] != 1:
        raise UnknownLayerError(f"its output is of shape {decoder.output_shape}, not grey images")
    described, weights = [], []
    for number, layer in enumerate(chain):
        entry, values = _describe_layer(layer)
        if number == 0 and shown is not None and len(shown) < layer.input.shape[1]:
            if entry["type"] != "Dense":
                raise UnknownLayerError("of many dimensions the first layer must be Dense")
            # The page has no sliders for the rest, which are zero: nor need their weights be there.
            values[0], entry["input"] = values[0][shown], [len(shown)]
        described.append(entry)
        weights.extend(values)
    if not all(np.isfinite(weight.astype("float16")).all() for weight in weights):
        raise UnknownLayerError("its weights are too large for half precision")
    return described, weights


def _describe_layer(layer):
    """Return the dict of one layer, and its kernel and bias."""
    kind = type(layer)
    entry = {
        "type": kind.__name__,
        "input": list(layer.input.shape[1:]),
        "output": list(layer.output.shape[1:]),
    }
    if kind in (layers.Reshape, layers.Flatten):  # the order of the values stays as it is
        return {**entry, "type": "Reshape"}, []
    if kind not in (layers.Dense, layers.Conv2D, layers.Conv2DTranspose):
        raise UnknownLayerError(f"{layer.name!r} is a {kind.__name__}, which the page doesn't know")
    kernel, *bias = layer.get_weights()
    if kind is layers.Conv2DTranspose:
        kernel = kernel.swapaxes(2, 3)  # Keras has outputs before inputs here
    entry |= _activation(layer)
    if kind is not layers.Dense:
        entry |= _convolution(layer, transposed=kind is layers.Conv2DTranspose)
    elif len(entry["input"]) != 1:
        raise UnknownLayerError(f"{layer.name!r} takes more than a list of numbers")
    return entry, [kernel, *(bias or [np.zeros(kernel.shape[-1])])]


def _activation(layer):
    """Return a layer's activation: a sigmoid, or what multiplies negative values."""
    activation = layer.activation
    if activation is keras.activations.sigmoid:
        return {"activation": "sigmoid"}
    if activation not in SLOPES:
        name = getattr(activation, "__name__", activation)
        raise UnknownLayerError(f"{layer.name!r} has the activation {name}")
    return {"activation": "leaky_relu", "slope": SLOPES[activation]}


def _convolution(layer, transposed):
    """Return kernel size, strides and the padding before the first row and column."""
    if layer.data_format != "channels_last" or set(layer.dilation_rate) != {1}:
        raise UnknownLayerError(f"{layer.name!r} is dilated, or has its channels first")
    if getattr(layer, "groups", 1) != 1 or getattr(layer, "output_padding", None) is not None:
        raise UnknownLayerError(f"{layer.name!r} has groups, or an output padding")
    if layer.padding not in ("same", "valid"):
        raise UnknownLayerError(f"{layer.name!r} has the padding {layer.padding!r}")
    large, small = layer.input.shape[1:3], layer.output.shape[1:3]
    if transposed:  # the gradient of a convolution from its output to its input
        large, small = small, large
    before = [
        max((few - 1) * stride + size - many, 0) // 2 if layer.padding == "same" else 0
        for many, few, stride, size in zip(
            large, small, layer.strides, layer.kernel_size, strict=True
        )
    ]
    return {"kernel": list(layer.kernel_size), "strides": list(layer.strides), "before": before}


def _half(values):
    """Return numbers in half precision, little-endian, as base64."""
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


def _sheet(images):
    """Return images, shape (n, height, width, 1) in [0, 1], as one picture, a data URI."""
    pixels = np.round(plotting.mosaic(images, COLUMNS) * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _page(content):
    """Return the template with its content, and a policy that lets its own script run alone."""
    page = TEMPLATE.read_text(encoding="utf-8")
    # Names of classes may be those of the reader's folders: none of them can end the element.
    data = json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    for name in ("style", "script"):
        [text] = re.findall(rf"<{name}>(.*?)</{name}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        page = page.replace(f"{name}-hash", f"'sha256-{digest}'")
    return page.replace("page-data", data)
