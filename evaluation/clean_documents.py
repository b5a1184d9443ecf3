"""Test metrics, baselines and figures for clean_documents.py."""

import numpy as np
from scipy import ndimage
from skimage.filters import rank

from common import metrics, plotting, training
from common.noisy_office import Page
from synthetic import old_pages, pages, textures
from tools.scans.page import cleaner

LABELS = {"clean_documents_autoencoder": "autoencoder", "clean_documents": "U-Net"}
WIDE_WINDOW = 63  # pixels: the median's window where letters are three times as large


def report(folder, settings, model, office):
    """Measure a model on the test pages, write figures and metrics.json, and print the table."""
    print(f"Evaluating on {len(office.test)} test pages ...", flush=True)
    networks = {LABELS[model.name]: model} | load_other_network(model, office)
    methods = {"dirty": lambda dirty: dirty, "background median": background_median}
    for label in LABELS.values():
        if label in networks:
            methods[label] = cleaner(networks[label])
    results = {label: evaluate(restore, office.test) for label, restore in methods.items()}
    plot_pages(folder, office, methods, results)

    wide = methods | {"background median": lambda dirty: background_median(dirty, WIDE_WINDOW)}
    large, old = page_at_300_dpi(settings.limit), old_test_pages(settings.limit)
    for label, restore in wide.items():
        f_measures = [ink_f_measure(restore, page) for page in old]
        results[label]["rmse_300dpi"] = evaluate(restore, [large])["rmse"]
        results[label]["f_old_pages"] = float(np.mean(f_measures))
    shown = {label: wide[label] for label in ("dirty", "background median", LABELS[model.name])}
    plot_page_at_300_dpi(folder, large, shown, results)
    plot_old_pages(folder, old, shown, results)
    note = ""
    if settings.architecture == "unet" and settings.recipe != "published":
        note = "In the training loss, all patches but those of old pages count ten times. "
    plotting.plot_history(folder, ylabel="mean squared error", caption=f"{note}Data: {office}.")
    training.report(
        folder, settings, model, office, results, row=LABELS[model.name], networks=networks
    )


def load_other_network(model, office):
    """Return {label: the other network in models/} if it was trained on the same pages, else {}."""
    [name] = set(LABELS) - {model.name}
    if training.trained_on(None, name) != office.name:
        return {}
    return {LABELS[name]: training.load_model(None, name)}


def background_median(page, window=21):
    """Return a page, shape (height, width, 1), divided by its background, a median filter.

    `window` is the side of the filter's square in pixels. More than half of it must be paper.
    """
    levels = np.round(page[..., 0] * 255).astype(np.uint8)
    background = rank.median(levels, np.ones((window, window), bool))[..., np.newaxis]
    return np.clip(page * 255 / np.maximum(background, 1), 0, 1).astype("float32")


def evaluate(restore, pages):
    """Return how well a method cleans pages.

    Args:
        restore: function from a dirty page, float32 (height, width, 1) in [0, 1], to a clean one.
        pages: list of `Page`.

    Returns:
        {metric: value}: `rmse`, pooled over all pixels; `psnr`, the mean of the pages'
        `metrics.psnr`; and `rmse_<kind>` for each kind of dirt.
    """
    errors, psnrs = {}, []
    for page in pages:
        dirty, clean = page.as_floats()
        restored = restore(dirty)
        errors.setdefault(page.kind, []).append(np.square(restored - clean).ravel())
        psnrs.append(metrics.psnr(clean[np.newaxis], restored[np.newaxis]))
    all_errors = [error for kind in errors.values() for error in kind]

    def rmse(parts):
        return float(np.sqrt(np.concatenate(parts).mean(dtype="float64")))

    kinds = {f"rmse_{kind}": rmse(errors[kind]) for kind in sorted(errors)}
    return {"rmse": rmse(all_errors), "psnr": float(np.mean(psnrs)), **kinds}


def page_at_300_dpi(limit=None):
    """Return a synthetic A6 `Page` at 300 dpi (1748x1240 pixels), smaller with a limit."""
    height, width = (600, 420) if limit else (1748, 1240)
    [(dirty, clean, kind, _)] = pages.make_pages(
        1, seed=training.seed_for("300 dpi"), height=height, width=width, scale=3
    )
    return Page("300 dpi", kind, dirty, clean)


def old_test_pages(limit=None):
    """Return synthetic old `Page`s of 480x480 pixels, from sheets not used in training."""
    sheets = old_pages.Sheets(4 if limit else 16, training.seed_for("old pages", "test"))
    test_pages = []
    for number in range(len(sheets.inks)):
        pair = sheets.patch(np.random.default_rng(training.seed_for("old page", number)), 480)
        dirty, clean = (np.round(image * 255).astype(np.uint8)[..., np.newaxis] for image in pair)
        test_pages.append(Page(str(number), "old", dirty, clean))
    return test_pages


def ink_f_measure(restore, page):
    """Return the F-measure of the ink on a cleaned `Page`, found by Otsu's threshold, 0 to 1."""
    dirty, _ = page.as_floats()
    return metrics.f_measure(metrics.ink(restore(dirty)), page.clean < 128)


def plot_pages(folder, office, methods, results):
    """Plot pieces of four test pages, one for each kind of dirt if there are four."""
    kinds = sorted({page.kind for page in office.test})
    rows = {}
    for number in range(4):
        kind = kinds[number % len(kinds)]
        of_kind = [page for page in office.test if page.kind == kind]
        page = of_kind[(2 * number + 1) % len(of_kind)]  # rows of the same kind differ
        dirty, clean = page.as_floats()
        width = max(240, page.dirty.shape[1] * 4 // 9)
        piece = dirtiest_piece(dirty, clean, width * 5 // 12, width)
        images = [restore(dirty)[piece] for restore in methods.values()] + [clean[piece]]
        rows[kind if len(kinds) > 1 else page.name] = images
    plotting.image_grid(
        rows,
        folder / "pages.png",
        title="Pieces of test pages" + ("" if kinds == ["own"] else ", with new text and new dirt"),
        caption="Dividing by a median over 21x21 pixels removes gradual shading and leaves whatever"
        " is as small as a letter. A network that sees enough of the page tells letters from dirt."
        " RMSE is pooled over all pixels of the test pages; gray values are from 0 to 1."
        f" Data: {office}.",
        column_titles=[f"{label}, RMSE {results[label]['rmse']:.3f}" for label in methods]
        + ["clean"],
        cell=(2.5, 1.1),
    )


def dirtiest_piece(dirty, clean, height, width):
    """Return the rows and columns, two slices, of a piece where heavy dirt covers letters.

    Args:
        dirty, clean: the page, float32 in [0, 1], shape (height, width, 1).
        height, width: of the piece, in pixels; larger pieces are cut to the page.
    """
    dirt = ndimage.uniform_filter(np.abs(dirty - clean)[..., 0], (height, width))
    letters = ndimage.uniform_filter(1 - clean[..., 0], (height, width))
    score = dirt * np.minimum(letters, 0.12)
    row, column = np.unravel_index(score.argmax(), score.shape)
    top = int(np.clip(row - height // 2, 0, max(score.shape[0] - height, 0)))
    left = int(np.clip(column - width // 2, 0, max(score.shape[1] - width, 0)))
    return slice(top, top + height), slice(left, left + width)


def plot_page_at_300_dpi(folder, page, methods, results):
    """Plot a piece of a page with letters three times as large as NoisyOffice's."""
    dirty, clean = page.as_floats()
    height, width = 400, 420
    piece = dirtiest_piece(dirty, clean, height, width)
    errors = ", ".join(f"{label} {results[label]['rmse_300dpi']:.3f}" for label in methods)
    plotting.image_grid(
        {"": [restore(dirty)[piece] for restore in methods.values()]},
        folder / "page_300dpi.png",
        title="Heavy dirt on a page at 300 dpi",
        caption=f"RMSE on the full page: {errors}. Letters are three times as large as in"
        " NoisyOffice. Data: a synthetic page.",
        column_titles=list(methods),
        cell=(4.2, 4.2 * height / width),
    )


def plot_old_pages(folder, old, methods, results):
    """Plot pieces of scikit-image's old page and of three synthetic ones."""
    rows = {"scanned page": textures.pictures(["page.png"])["page.png"][..., np.newaxis]}
    piece = slice(190), slice(384)
    legible = [
        page.dirty[piece]
        for page in old
        if 0.03 < (page.clean[piece] < 128).mean() < 0.3
        and ink_f_measure(methods["background median"], page) > 0.6
    ]
    rows |= {f"synthetic {number}": dirty for number, dirty in enumerate(legible[:3], start=1)}
    scores = ", ".join(f"{label} {results[label]['f_old_pages']:.2f}" for label in methods)
    plotting.image_grid(
        {
            label: [restore(dirty / np.float32(255)) for restore in methods.values()]
            for label, dirty in rows.items()
        },
        folder / "old_pages.png",
        title="Old pages: faint and uneven ink, grain, show-through",
        caption="F-measure of the ink at Otsu's threshold (higher is better), averaged over the"
        f" synthetic pages: {scores}. The first row is a scan from scikit-image. Data: that scan"
        f" and {len(old)} synthetic pages.",
        column_titles=list(methods),
        cell=(4, 2),
    )
