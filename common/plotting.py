"""Every figure. Each ends in a caption that says what to see, and which data it was made from.

All functions that plot take what they show, then `path` (the file to write), `title` (above),
`caption` (below) and, by name, `show` (open a window as well).
"""

import math
import textwrap
import warnings
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from skimage.util import montage

from common import UserError
from common.files import printable, write_whole

_CHARACTERS_PER_INCH = 15  # of the caption's font
LATENT_AXES = {"xlabel": "first latent dimension", "ylabel": "second latent dimension"}
# Trubetskoy 2017, https://sashamaps.net/docs/resources/20-colors/: ten that are easy to tell apart.
TEN_COLOURS = [
    *("#4363d8", "#f58231", "#e6194b", "#3cb44b", "#911eb4"),
    *("#9a6324", "#000000", "#f032e6", "#42d4f4", "#b8a800"),
]


def set_up(show):
    """Plot to files only, unless windows are wanted too: UserError where there is no display."""
    plt.rcParams["text.parse_math"] = False  # a $ in a name of the reader's is no formula
    try:
        plt.switch_backend(matplotlib.get_backend() if show else "agg")
        without = matplotlib.get_backend().lower() in ("agg", "cairo", "pdf", "ps", "svg")
    except Exception:  # a backend that was asked for by name raises what it will
        without = True
    if show and without:
        raise UserError("--show needs a display, and there is none; leave it out")


def save(figure, path, caption, show=False):
    """Write a figure with its caption below, whole or not at all; open a window too if wanted."""
    width, height = figure.get_size_inches()
    characters = int(width * _CHARACTERS_PER_INCH)
    lines = [line for part in caption.split("\n") for line in textwrap.wrap(part, characters)]
    figure.set_size_inches(width, height + 0.17 * (len(lines) + 1))
    figure.supxlabel("\n".join(["", *lines]), x=0.01, ha="left", fontsize=8, color="0.3")
    with write_whole(path) as temporary:
        # Matplotlib's own JPEG quality of 75 would be seen in enlarged pixels.
        options = {"pil_kwargs": {"quality": 92}} if Path(path).suffix == ".jpg" else {}
        with warnings.catch_warnings():  # a name in a script that the font lacks: boxes say enough
            warnings.filterwarnings("ignore", "Glyph")
            figure.savefig(temporary, dpi=120, bbox_inches="tight", pad_inches=0.08, **options)
    print(f"Wrote {printable(path)}", flush=True)
    if show:
        plt.show(block=False)
    else:
        plt.close(figure)


def image_rows(rows, path, title, caption, show=False, cell=0.9, column_titles=()):
    """Plot rows of images, {label: (columns, height, width, 1 or 3) in [0, 1]}, label at the left.

    None in a row leaves its place empty. `cell` is the inches an image takes, or (width, height).
    """
    columns = len(next(iter(rows.values())))
    wide, tall = np.broadcast_to(cell, 2)
    label_width = 0.105 * max(len(line) for label in rows for line in label.split("\n")) + 0.2
    size = columns * wide + label_width, len(rows) * tall + (0.7 if column_titles else 0.5)
    figure, axes = plt.subplots(
        len(rows), columns, squeeze=False, figsize=size, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure.suptitle(f"{title}\n", fontsize=12, linespacing=0.6)  # some air below, too
    for row, (label, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            if image is None:
                axis.axis("off")
                continue
            grey = image[..., 0] if image.shape[-1] == 1 else image
            axis.imshow(grey, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    crowded = max(map(len, column_titles), default=0) > 11 * wide
    for axis, column_title in zip(axes[0], column_titles, strict=False):
        axis.set_title(short(column_title, 15 * wide), fontsize=8 if crowded else 9)
    save(figure, path, caption, show)


def short(name, most):
    """Return a name of at most so many characters; what is left out in the middle is a …"""
    half = max(int(most) // 2, 2)
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"


def curves(
    lines,
    path,
    title,
    caption,
    labels,
    show=False,
    mark=None,
    ticks=None,
    wide=None,
    ylim=None,
    join="-",
):
    """Plot several lines, {label: (values along the axis, values)}.

    `labels` are those of the axes, (x, y), `wide` is the label of a line that another lies on,
    `mark` is (x, text) of a vertical line, `ticks` is where they stand on a logarithmic axis (None:
    a linear one), and `join` is how points are joined: "-" or "".
    """
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for style, (label, (x, y)) in zip("os^Dv", lines.items(), strict=False):
        width = {"lw": 6, "alpha": 0.4} if label == wide else {}
        axis.plot(x, y, f"{style}{join}" if len(x) <= 50 else "-", label=label, ms=4, **width)
    if mark:
        axis.axvline(mark[0], color="0.6", lw=1)
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axis.annotate(mark[1], (mark[0], 0.02), (4, 0), **place, fontsize=8, color="0.3")
    axis.set(xlabel=labels[0], ylabel=labels[1], title=title, ylim=ylim)
    if ticks is not None:
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path, caption, show)


def loss_curves(history, path, title, caption, ylabel, show=False):
    """Plot training and validation loss over epochs, from dicts with epoch, loss and val_loss."""
    epochs = [row["epoch"] for row in history]
    training, validation = ([row[key] for row in history] for key in ("loss", "val_loss"))
    best = int(np.nanargmin(validation))
    lines = {"training": (epochs, training), "validation": (epochs, validation)}
    lines[f"best, {validation[best]:.4g}"] = ([epochs[best]], [validation[best]])
    # The first epochs fall so far that the rest would look flat.
    start, ylim = len(history) // 5, None
    late = training[start:] + validation[start:]
    if len(history) >= 5 and np.isfinite(late).all():
        margin = max(late) - min(late)
        ylim = min(late) - 0.05 * margin, max(late) + 0.15 * margin
    curves(lines, path, title, caption, ("epoch", ylabel), show, ylim=ylim)


def mark_classes(axis, points, labels, names):
    """Plot points, shape (n, 2), on an axis, each class in a colour and with a marker of its own.

    `labels` are integers, shape (n,), `names` those of the classes. Of more than 20 those with the
    most points have a colour, the others are grey. The frame is square and holds all points.
    """
    counts = np.bincount(labels, minlength=len(names))
    shown = sorted(np.argsort(-counts, kind="stable")[:20])
    if len(names) > 20:
        rest = points[~np.isin(labels, shown)].T
        axis.scatter(*rest, s=9, alpha=0.4, lw=0, color="0.7", label=f"{len(names) - 20} others")
    for number, label in enumerate(shown):
        marker, colour = "os^vDPX<>p"[(number + number // 10) % 10], TEN_COLOURS[number % 10]
        style = {"s": 9, "alpha": 0.75, "lw": 0, "marker": marker, "color": colour}
        axis.scatter(*points[labels == label].T, **style, label=short(names[label], 20))
    limit = max(2.3, float(np.abs(points).max()) * 1.05)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def mark_prior(axis):
    """Plot the 1- and 2-sigma circles of the normal prior on an axis."""
    for sigma in (1, 2):
        axis.add_patch(plt.Circle((0, 0), sigma, fill=False, color="k", lw=1, ls="--", zorder=3))
        white = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}
        place = {"ha": "center", "va": "center", "bbox": white, "zorder": 4}
        axis.annotate(f"{sigma}σ", (0, sigma), fontsize=9, **place)


def planes(columns, path, title, caption, labels, names, show=False):
    """Plot latent planes side by side: codes by class above, decoded ones below.

    Args:
        columns: {heading: (codes, images, region)}. Codes are of shape (n, 2). Images, shape
            (rows · rows, height, width, 1), show the region (left, right, bottom, top) row by row,
            the top row first; if that is None they are samples of the normal prior.
        labels, names: as for `mark_classes`.
    """
    longest = max(len(short(name, 20)) for name in names)
    size = 3.7 * len(columns) + 0.9 + 0.1 * longest, 7.6  # the legend takes its width from them
    figure, axes = plt.subplots(2, len(columns), figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=12)
    for (above, below), (heading, (codes, images, region)) in zip(
        axes.T, columns.items(), strict=True
    ):
        mark_classes(above, codes[:3_000], labels[:3_000], names)
        above.set(title=heading)
        picture = mosaic(images, math.isqrt(len(images)))
        below.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=region)
        if region is None:
            mark_prior(above)
            below.set_axis_off()
        else:
            above.set(xlim=region[:2], ylim=region[2:], aspect="auto")
            below.set(**LATENT_AXES, aspect="auto")
    handles, entries = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, entries, loc="outside right upper", markerscale=2.5, frameon=False)
    save(figure, path, caption, show)


def mosaic(images, columns, gap=0):
    """Return images, shape (n, height, width, 1), in rows of `columns`, as one picture.

    Around each are `gap` white pixels. What is missing in the last row is white.
    """
    grid = math.ceil(len(images) / columns), columns
    return montage(images[..., 0], fill=1, grid_shape=grid, padding_width=gap)


def sheet(images, path, title, caption, columns, show=False, labels=()):
    """Plot images, shape (n, height, width, 1) in [0, 1], in rows of `columns`.

    With `labels`, one for each, they stand apart, their labels above them; else edge to edge.
    """
    cell = 0.9 if labels else np.clip(4.5 / columns, 0.22, 0.6)  # inches
    gap = images.shape[2] // 4 if labels else 0
    size = (max(columns * cell, 4.5), math.ceil(len(images) / columns) * cell + 0.4)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    axis.imshow(mosaic(images, columns, gap), cmap="gray", vmin=0, vmax=1)
    for number, label in enumerate(labels):
        row, column = np.array(divmod(number, columns)) * (images.shape[1:3] + np.array(gap)) + gap
        axis.text(column - 0.5, row - 1.5, short(label, 15 * cell), fontsize=7, va="baseline")
    axis.set_axis_off()
    figure.suptitle(title, fontsize=12)
    save(figure, path, caption, show)
