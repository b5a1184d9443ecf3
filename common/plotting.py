"""Every figure. Each ends in a caption that says what to see, and which data it was made from."""

import importlib.util
import math
import shutil
import textwrap

import matplotlib
import numpy as np

from common.images import write_whole

_CHARACTERS_PER_INCH = 15  # of the caption's font


def set_up(show):
    """Draw to files only, unless windows are wanted too."""
    if not show:
        matplotlib.use("Agg")


def save(figure, path, caption, show=False):
    """Write a figure with its caption below, whole or not at all; open a window too if wanted."""
    import matplotlib.pyplot as plt

    width, height = figure.get_size_inches()
    lines = _wrap(caption, int(width * _CHARACTERS_PER_INCH))
    band = 0.17 * len(lines) + 0.12  # inches
    figure.set_size_inches(width, height + band)
    bottom = band / (height + band)
    top = 0.06 / (height + band)
    figure.get_layout_engine().set(rect=(0.012, bottom, 0.976, 1 - bottom - top))
    figure.text(
        0.01, 0.06 / (height + band), "\n".join(lines), fontsize=8, va="bottom", color="0.3"
    )
    with write_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
    print(f"Wrote {path}", flush=True)
    if show:
        plt.show(block=False)
    else:
        plt.close(figure)


def wait_for_windows(show):
    """Keep the windows open until the user closes them."""
    if show:
        import matplotlib.pyplot as plt

        plt.show()


def _wrap(text, width):
    return [line for part in text.split("\n") for line in textwrap.wrap(part, width)]


def image_rows(rows, path, title, caption, show=False, cell=0.9, heads=()):
    """Draw rows of images, each with its label at the left.

    Args:
        rows: {label: images}, each of shape (columns, height, width, 1), or 3 for
            colour, values in [0, 1].
        path: the file to write.
        title: stands above.
        caption: stands below.
        show: open a window too.
        cell: inches an image takes, or a pair: in width and in height.
        heads: what stands above each column.
    """
    import matplotlib.pyplot as plt

    columns = len(next(iter(rows.values())))
    wide, tall = np.broadcast_to(cell, 2)
    label_width = 0.105 * max(len(line) for label in rows for line in label.split("\n")) + 0.2
    figure, axes = plt.subplots(
        len(rows),
        columns,
        squeeze=False,
        figsize=(columns * wide + label_width, len(rows) * tall + 0.4),
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure.suptitle(title, fontsize=12)
    for row, (label, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            grey = image[..., 0] if image.shape[-1] == 1 else image
            axis.imshow(grey, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    for axis, head in zip(axes[0], heads, strict=False):
        axis.set_title(head, fontsize=9)
    save(figure, path, caption, show)


def loss_curves(history, path, title, caption, ylabel, show=False):
    """Draw training and validation loss over epochs.

    Args:
        history: the rows of history.csv: dicts with epoch, loss and val_loss.
        path, title, caption, show: as for `image_rows`.
        ylabel: what the loss is, and its unit.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) <= 30 else None
    axis.plot(epochs, [row["loss"] for row in history], label="training", marker=marker, ms=4)
    validation = np.array([row["val_loss"] for row in history])
    axis.plot(epochs, validation, label="validation", marker=marker, ms=4)
    best = int(np.nanargmin(validation))
    axis.plot(epochs[best], validation[best], "k*", ms=11, label=f"best, {validation[best]:.4g}")
    # The first epochs fall so far that the rest would look flat.
    late = [row[key] for row in history[len(history) // 5 :] for key in ("loss", "val_loss")]
    if len(history) >= 5 and np.isfinite(late).all():
        low, high = min(late), max(late)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    axis.set(xlabel="epoch", ylabel=ylabel, title=title)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path, caption, show)


def curves(x, lines, path, title, caption, xlabel, ylabel, mark=None, show=False, xscale="log"):
    """Draw several lines over the same values.

    Args:
        x: the values along the axis.
        lines: {label: values}.
        path, title, caption, show: as for `image_rows`.
        xlabel, ylabel: what the axes are, and their units.
        mark: (x, text) of a vertical line.
        xscale: "log", with a tick at each value, or "linear".
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    styles = ["o-", "s--", "^:", "D-", "v-"]
    for style, (label, values) in zip(styles, lines.items(), strict=False):
        axis.plot(x, values, style, label=label, ms=4)
    if mark:
        axis.axvline(mark[0], color="0.6", lw=1)
        axis.annotate(
            mark[1], (mark[0], 0.02), (4, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8, color="0.3",
        )  # fmt: skip
    axis.set(xscale=xscale, xlabel=xlabel, ylabel=ylabel, title=title)
    if xscale == "log":
        axis.set_xticks(x, [f"{value:g}" for value in x])
        axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path, caption, show)


def sheet(images, columns, path, title, caption, show=False):
    """Draw images edge to edge in rows of `columns`.

    Args:
        images: shape (n, height, width, 1), values in [0, 1].
        columns: images in a row.
        path, title, caption, show: as for `image_rows`.
    """
    import matplotlib.pyplot as plt

    count, height, width = images.shape[:3]
    rows = math.ceil(count / columns)
    tiles = np.ones((rows * columns, height, width))
    tiles[:count] = images[..., 0]
    picture = tiles.reshape(rows, columns, height, width).swapaxes(1, 2)
    cell = np.clip(4.5 / columns, 0.22, 0.6)  # inches an image takes
    size = (max(columns * cell, 4.5), rows * cell + 0.4)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    axis.imshow(picture.reshape(rows * height, columns * width), cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
    figure.suptitle(title, fontsize=12)
    save(figure, path, caption, show)


# Petroff 2021, https://arxiv.org/abs/2107.02270: ten colours that colour-blind readers can tell.
_TEN_COLOURS = [
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
]


def scatter(points, labels, names, path, title, caption, show=False):
    """Draw points by class, with the 1- and 2-sigma circles of the standard normal prior.

    Args:
        points: shape (n, 2).
        labels: integers, shape (n,).
        names: of the classes.
        path, title, caption, show: as for `image_rows`.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.6, 6), layout="constrained")
    for label, name in enumerate(names):
        chosen = points[labels == label]
        marker = "os^vDPX<>p"[label % 10]
        colour = _TEN_COLOURS[label % 10]
        axis.scatter(*chosen.T, s=9, alpha=0.75, lw=0, marker=marker, color=colour, label=name)
    for sigma in (1, 2):
        axis.add_patch(plt.Circle((0, 0), sigma, fill=False, color="k", lw=1, ls="--"))
        axis.annotate(f"{sigma}σ", (0, sigma), ha="center", va="bottom", fontsize=9)
    limit = max(2.3, float(np.quantile(np.abs(points), 0.999)) * 1.05)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=title)
    axis.set(xlabel="first latent dimension", ylabel="second latent dimension")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2.5, frameon=False)
    save(figure, path, caption, show)


def diagram(model, path):
    """Draw a model's layers with keras.utils.plot_model, where Graphviz is installed."""
    import keras

    if not (shutil.which("dot") and importlib.util.find_spec("pydot")):
        return
    with write_whole(path) as temporary:
        keras.utils.plot_model(model, temporary, show_shapes=True, show_layer_names=True)
    print(f"Wrote {path}", flush=True)


def feature_maps(inputs, maps, path, title, caption, show=False):
    """Draw each input beside all the maps a layer makes of it.

    Args:
        inputs: shape (n, height, width, 1), values in [0, 1].
        maps: shape (n, h, w, channels), any range of values.
        path, title, caption, show: as for `image_rows`.
    """
    import matplotlib.pyplot as plt

    channels = maps.shape[-1]
    columns = math.ceil(channels / 2)
    figure, axes = plt.subplots(
        len(inputs),
        2,
        squeeze=False,
        figsize=(columns * 0.6 + 1.6, len(inputs) * 1.35 + 0.5),
        width_ratios=[1, columns / 2],
        layout="constrained",
    )
    figure.suptitle(title, fontsize=12)
    for (left, right), image, each in zip(axes, inputs, maps, strict=True):
        left.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        tiles = np.full((2 * columns, each.shape[0] + 1, each.shape[1] + 1), np.nan)
        tiles[:channels, 1:, 1:] = np.moveaxis(each, -1, 0)
        sheet = tiles.reshape(2, columns, *tiles.shape[1:]).swapaxes(1, 2)
        sheet = sheet.reshape(2 * tiles.shape[1], columns * tiles.shape[2])
        right.imshow(sheet, cmap="magma", interpolation="nearest")
        for axis in (left, right):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    save(figure, path, caption, show)
