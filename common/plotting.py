"""Figures with captions. They avoid pyplot, so a notebook's settings are untouched.

Plotting functions take the data, then `path` (the file to write), `title` (above) and `caption`
(below).
"""

import math
import textwrap
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.text import Text
from skimage.util import montage

from common import files
from common.training import read_history

LATENT_AXES = {"xlabel": "first latent dimension", "ylabel": "second latent dimension"}
# Trubetskoy 2017, https://sashamaps.net/docs/resources/20-colors/: ten distinct colors.
COLORS = ("#4363d8 #f58231 #e6194b #3cb44b #911eb4 #9a6324 #000000 #f032e6 #42d4f4 #b8a800").split()


def save(figure, path, caption):
    """Write a figure with its caption below.

    Raises UserError if the file exists, unless it is in the folder of a training.
    """
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(caption, int(15 * width))  # characters per inch of the caption's font
    figure.set_size_inches(width, height + 0.17 * (len(lines) + 1))
    figure.supxlabel("\n".join(["", *lines]), x=0.01, ha="left", fontsize=8, color="0.3")
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a $ in a file name does not start a formula
    replace = files.is_run_folder(Path(path).parent)
    with files.write_whole(path, replace) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter in a file name that the font lacks
        # Matplotlib's default JPEG quality, 75, would show in enlarged pixels; PNG ignores it.
        figure.savefig(
            temporary, dpi=120, bbox_inches="tight", pad_inches=0.08, pil_kwargs={"quality": 92}
        )
    print(f"Wrote {files.printable(path)}", flush=True)


def image_grid(rows, path, *, title, caption, column_titles=(), cell=0.9):
    """Plot rows of images, {label: (columns, height, width, 1 or 3) in [0, 1]}.

    None instead of an image leaves its cell empty. `cell` is the size of a cell in inches, one
    number or (width, height).
    """
    columns = len(next(iter(rows.values())))
    cell_width, cell_height = np.broadcast_to(cell, 2)
    label_width = 0.105 * max(len(line) for label in rows for line in label.split("\n")) + 0.2
    height = len(rows) * cell_height + (0.7 if column_titles else 0.5)
    figure = Figure(figsize=(columns * cell_width + label_width, height), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure.suptitle(f"{title}\n", fontsize=12, linespacing=0.6)  # with a gap below
    for row, (label, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            if image is None:
                axis.axis("off")
                continue
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    crowded = max(map(len, column_titles), default=0) > 11 * cell_width
    for axis, column_title in zip(axes[0], column_titles, strict=False):
        axis.set_title(shorten(column_title, 15 * cell_width), fontsize=8 if crowded else 9)
    save(figure, path, caption)


def plot_lines(lines, path, *, title, caption, xlabel, ylabel, xscale="linear"):
    """Plot lines, {label: (x values, y values)}. A logarithmic axis has a tick at each x value."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, (label, (x, y)) in enumerate(lines.items()):
        marker = "os^DvPX"[number % 7] if len(x) <= 50 else ""
        axis.plot(x, y, marker=marker, ms=4, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, xscale=xscale)
    if xscale == "log":
        ticks = sorted({value for x, _ in lines.values() for value in x})
        axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path, caption)


def plot_history(folder, *, ylabel, caption):
    """Plot losses over epochs from a run folder's history.csv, if there is one, as loss.png."""
    rows = read_history(folder)
    if not rows:
        return
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    epochs = np.arange(1, len(rows) + 1)
    training, validation = (np.array([row[key] for row in rows]) for key in ("loss", "val_loss"))
    best = int(np.nanargmin(validation))
    axis.plot(epochs, training, label="training", marker="o" if len(rows) <= 50 else "", ms=4)
    axis.plot(epochs, validation, label="validation", marker="s" if len(rows) <= 50 else "", ms=4)
    axis.plot(epochs[best], validation[best], "^", label=f"best, {validation[best]:.4g}")
    # Left out of the y range: the first fifth, which falls so far that the rest would look flat.
    late = np.concatenate([training[len(rows) // 5 :], validation[len(rows) // 5 :]])
    if len(rows) >= 5 and np.isfinite(late).all():
        margin = late.max() - late.min()
        axis.set_ylim(late.min() - 0.05 * margin, late.max() + 0.15 * margin)
        caption = f"The first epochs may be above the frame. {caption}"
    axis.set(xlabel="epoch", ylabel=ylabel, title="Training")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend()
    save(
        figure,
        folder / "loss.png",
        "The training loss is averaged over each epoch, while the weights change; the validation "
        f"loss is computed at its end. {caption}",
    )


def image_sheet(images, path, *, title, caption, columns, labels=()):
    """Plot images, shape (n, height, width, 1) in [0, 1], in rows of `columns`.

    With `labels`, one for each image, the images have gaps and the labels stand above them.
    Otherwise they touch.
    """
    cell = 0.9 if labels else np.clip(4.5 / columns, 0.22, 0.6)  # inches
    gap = images.shape[2] // 4 if labels else 0
    size = (max(columns * cell, 4.5), math.ceil(len(images) / columns) * cell + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    axis.imshow(mosaic(images, columns, gap), cmap="gray", vmin=0, vmax=1)
    for number, label in enumerate(labels):
        row, column = np.array(divmod(number, columns)) * (np.array(images.shape[1:3]) + gap) + gap
        axis.text(column - 0.5, row - 1.5, shorten(label, 15 * cell), fontsize=7, va="baseline")
    axis.set_axis_off()
    figure.suptitle(title, fontsize=12)
    save(figure, path, caption)


def mosaic(images, columns, gap=0):
    """Return images, shape (n, height, width, 1), in rows of `columns` as one (height, width).

    Each image has `gap` white pixels around it; the rest of the last row is white.
    """
    grid = math.ceil(len(images) / columns), columns
    return montage(images[..., 0], fill=1, grid_shape=grid, padding_width=gap)


def scatter_classes(axis, points, labels, names):
    """Plot points, shape (n, 2), with a color and a marker for each class.

    `labels` are integers, shape (n,), `names` the names of the classes. If there are more than 20
    classes, only the 20 largest have a color; the others are gray. The axes are square and hold all
    points.
    """
    counts = np.bincount(labels, minlength=len(names))
    shown = sorted(np.argsort(-counts, kind="stable")[:20])
    if len(names) > 20:
        x, y = points[~np.isin(labels, shown)].T
        axis.scatter(x, y, s=9, alpha=0.4, lw=0, color="0.7", label=f"{len(names) - 20} others")
    for number, label in enumerate(shown):
        # Shifted by one in the second ten, so that no pair of marker and color is repeated.
        marker = "os^vDPX<>p"[(number + number // 10) % 10]
        x, y = points[labels == label].T
        name, color = shorten(names[label], 20), COLORS[number % 10]
        axis.scatter(x, y, s=9, alpha=0.75, lw=0, marker=marker, color=color, label=name)
    limit = max(2.3, float(np.abs(points).max()) * 1.05)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def draw_prior(axis):
    """Draw the 1σ and 2σ circles of the normal prior."""
    background = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}
    for sigma in (1, 2):
        axis.add_patch(Circle((0, 0), sigma, fill=False, color="k", lw=1, ls="--", zorder=3))
        axis.text(
            0, sigma, f"{sigma}σ", fontsize=9, ha="center", va="center", bbox=background, zorder=4
        )


def shorten(name, max_length):
    """Return a name with at most `max_length` characters, its middle replaced by an ellipsis."""
    half = max(int(max_length) // 2, 2)
    return name if len(name) <= max_length else f"{name[: half - 1]}…{name[-half:]}"
