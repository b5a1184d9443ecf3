"""Train a network that cleans scanned pages: stains, folds, shadows, dark paper, faint ink.

    dirty page                 (192, 192, 1)      any sides that are multiples of 32
      divided by its paper     (192, 192, 2)      beside the page itself
      Conv 32 4x4, stride 2    (96, 96, 32)
      Conv 32 3x3              (96, 96, 32) --------------------------------------.
      MaxPool, 2 x Conv 48     (48, 48, 48) ------------------------------.       |
      MaxPool, 2 x Conv 64     (24, 24, 64) ----------------------.       |       |
      MaxPool, 2 x Conv 96     (12, 12, 96) --------------.       |       |       |
      MaxPool, 3 x Conv 96     (6, 6, 96)                 |       |       |       |
      UpSampling, 2 x Conv 96  (12, 12, 96)  <------------'       |       |       |
      UpSampling, 2 x Conv 64  (24, 24, 64)  <--------------------'       |       |
      UpSampling, 2 x Conv 48  (48, 48, 48)  <----------------------------'       |
      UpSampling, 2 x Conv 32  (96, 96, 32)  <------------------------------------'
      Conv2DTranspose 1 4x4    (192, 192, 1)
    clean page = divided page + that, clipped to [0, 1]

This is `--architecture unet`; the article's `autoencoder` has 38,145 parameters.

Run it:
  python clean_documents.py --input scans/*.jpg   clean scans of yours, no training needed
  python clean_documents.py                       train on NoisyOffice and on synthetic pages
  python clean_documents.py --recipe shipped      as the network in models/ was trained
  python clean_documents.py --architecture autoencoder --recipe published

Network and recipe `published` are those of a blog article on Kaggle's "Denoising Dirty Documents".
U-Net: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, batches, command_line, devices, metrics, noisy_office, plotting
from common import run_folder, trained_models
from common.noisy_office import Page
from common.command_line import flag
from applications import inputs, page_cleaning
from synthetic import old_pages, pages, textures

import dataclasses

import keras
import numpy as np
from keras import layers, ops
from PIL import Image
from scipy import ndimage
from skimage.filters import rank

PUBLISHED = {"epochs": 200, "batch_size": 16, "learning_rate": 0.001, "patience": 5}
RECIPES = {
    "unet": {
        "fast": {"epochs": 15, "batch_size": 8, "learning_rate": 0.003, "max_steps_per_epoch": 200},
        # 13,000 steps, not 3,000.
        "shipped": {
            **{"epochs": 65, "batch_size": 8, "learning_rate": 0.002},
            "max_steps_per_epoch": 200,
        },
        "published": PUBLISHED,
    },
    "autoencoder": {
        "fast": {"epochs": 10, "batch_size": 8, "learning_rate": 0.005, "max_steps_per_epoch": 100},
        "published": PUBLISHED,
    },
}
PATCH = {"unet": 192, "autoencoder": 128}  # pixels, height and width of a training patch
PATCHES_PER_PAGE = 32  # in an epoch
# Beside NoisyOffice: pages in its manner, with more fonts and more dirt; pages as archives have
# them; and the share of patches from each.
SYNTHETIC_PAGES, SYNTHETIC_SHARE = 120, {"unet": 0.1, "autoencoder": 0.25}
OLD_SHEETS, OLD_SHARE = 500, {"unet": 0.45, "autoencoder": 0.0}
OFFICE_WEIGHT = 10.0  # in the loss: old pages, beside it, keep twenty times the error
FIGURES = ["pages.png", "page_300dpi.png", "old_pages.png"]
TITLES = {
    "noisy_input": "dirty",
    "background_median": "divided by median",
    "autoencoder": "autoencoder",
    "unet": "U-Net",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "clean_documents"
    loses_by_bfloat16 = True
    names = {"unet": "clean_documents", "autoencoder": "clean_documents_autoencoder"}
    build_like = staticmethod(lambda architecture, model: BUILDERS[architecture]())
    recipe: str = flag(
        "fast, the default; as the source article did; or as the model in models/ was trained",
        *("fast", str, ("train",)),
        choices=["fast", "published", "shipped"],
    )
    architecture: str = flag("default: unet", choices=list(names), only=())
    format: str = flag(
        "of the cleaned files (default: same)",
        *("same", str, ("input",)),
        choices=["same", "pdf", "tiff", "png", "jpeg"],
    )
    bilevel: bool = flag("black and white, in 1 bit", False, bool, ("input",))
    grey: bool = flag("coloured ink turns grey", False, bool, ("input",))
    force: bool = flag("replace what was cleaned into --output-dir", False, bool, ("input",))
    dask: str = flag(
        "by dask's workers: those of a scheduler, or local, one for each core of this machine",
        *(None, page_cleaning.dask_address, ("input",)),
        metavar="tcp://HOST:PORT",
    )


def build_unet(height=None, width=None):
    """Return the U-Net: (n, height, width, 1) to the same shape, values in [0, 1].

    Height and width are multiples of 32; None leaves them open.
    """
    conv = {"activation": "relu", "padding": "same", "kernel_initializer": "he_normal"}
    near = {"strides": 1, "padding": "same"}
    dirty = keras.Input((height, width, 1), name="dirty")

    # What is dark on dark paper and what is dark on white paper look alike once the page is divided
    # by its paper. Paper is what is left when all that is narrower than 52 pixels is filled up: the
    # brightest near each place, and of that the darkest. A quarter of the resolution is enough.
    paper = layers.AveragePooling2D(4)(dirty)
    paper = layers.MaxPooling2D(13, **near)(paper)
    paper = -layers.MaxPooling2D(13, **near)(-paper)
    paper = layers.AveragePooling2D(9, **near)(paper)
    for _ in range(2):
        paper = layers.AveragePooling2D(3, **near)(layers.UpSampling2D(2)(paper))
    divided = ops.minimum(dirty / ops.maximum(paper, 0.05), 1)

    # To tell a stain from a letter, or this side's ink from the other side's, a network must look
    # further than a letter is wide: five halvings let this one see some 350 pixels. It starts at
    # half the resolution, where a step takes a quarter of the time, and a letter has all it needs.
    x = layers.Concatenate()([dirty, divided])
    x = layers.Conv2D(32, 4, strides=2, **conv)(x)
    x = layers.Conv2D(32, 3, **conv)(x)
    skips = [x]
    for filters in (48, 64, 96, 96):
        x = layers.MaxPooling2D(2)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)
        skips.append(x)
    x = layers.Conv2D(96, 3, **conv)(skips.pop())
    for filters in (96, 64, 48, 32):
        x = layers.Conv2D(filters, 1, **conv)(x)
        x = layers.UpSampling2D(2)(x) + skips.pop()
        x = layers.Conv2D(filters, 3, **conv)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)

    # Untrained it returns the divided page: it learns what to add to that.
    last = {"padding": "same", "kernel_initializer": "zeros", "name": "change"}
    clean = divided + layers.Conv2DTranspose(1, 4, strides=2, **last)(x)
    # Clipped to [0, 1], but for the gradient: where it is zero, nothing can be learned any more.
    clean = clean + ops.stop_gradient(ops.clip(clean, 0, 1) - clean)
    return keras.Model(dirty, clean, name="clean_documents")


def build_autoencoder(height=None, width=None):
    """Return the article's autoencoder: (n, height, width, 1) to the same shape, in [0, 1].

    Height and width are even; None leaves them open. It sees 10 pixels.
    """
    dirty = keras.Input((height, width, 1), name="dirty")
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(dirty)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    clean = layers.Conv2D(1, 3, activation="sigmoid", padding="same", name="clean")(x)
    return keras.Model(dirty, clean, name="clean_documents_autoencoder")


BUILDERS = {"unet": build_unet, "autoencoder": build_autoencoder}


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, RECIPES, argv)
    plotting.set_up(settings.show)
    if settings.input:
        return apply(settings)

    # Four files of NoisyOffice share each clean page, and pages of one family their text and dirt.
    # The article splits by file, and tests on what it trained on. Here it is another family.
    model, settings = trained_models.model_to_evaluate(settings)
    office = noisy_office.load_noisy_office(
        settings.data_dir, settings.synthetic, settings.limit, settings.seed
    )
    with run_folder.RunFolder(settings, office, FIGURES) as run:
        if model is None:
            stream = patches(settings, office)
            keras.utils.set_random_seed(settings.seed)
            with devices.scope(settings):
                model = BUILDERS[settings.architecture]()
                optimizer = keras.optimizers.Adam(settings.learning_rate)
                if settings.recipe != "published":
                    steps = settings.epochs * stream.steps_per_epoch
                    schedule = batches.warm_up_and_cosine(settings.learning_rate, steps)
                    optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
                model.compile(optimizer, loss="mse")
            model.summary()
            model.fit(
                stream.dataset(run.first_epoch),
                steps_per_epoch=stream.steps_per_epoch,
                epochs=settings.epochs,
                initial_epoch=run.first_epoch,
                **devices.validation(settings, *whole_pages(office.validation), 4),
                callbacks=run.callbacks(model),
                shuffle=False,  # the batches come shuffled
                verbose=run.verbose,
            )
            model = run.best_model()

        # The test pages, once; the other network, as shipped, is shown beside this one.
        print(f"Evaluating on {len(office.test)} test pages ...", flush=True)
        networks = {settings.architecture: model, **trained_models.shipped_beside(settings, office)}
        cleaners = {
            "noisy_input": lambda dirty: dirty,
            "background_median": background_median,
            **{name: page_cleaning.cleaner(networks[name]) for name in RECIPES if name in networks},
        }
        results = {name: evaluate(clean, office.test) for name, clean in cleaners.items()}
        # Pages at three times their resolution, with the filter's window as much larger.
        large, old = page_at_300_dpi(settings.limit), old_pages_to_test(settings.limit)
        wider = {**cleaners, "background_median": lambda x: background_median(x, 63)}
        for name, clean in wider.items():
            results[name]["rmse_300dpi"] = evaluate(clean, [large])["rmse"]
            results[name]["f_old_pages"] = np.mean([ink_found(clean, page) for page in old])
        plot_office(run, office, cleaners, results)
        plot_others(run, large, old, wider, results)
        run.plot_history("mean squared error")
        run.finish(model, results, settings.architecture, others=networks)


def apply(settings):
    """Clean the files that --input names, and return the exit code."""
    options = page_cleaning.Options(settings.format, settings.bilevel, settings.grey)
    if settings.force and settings.output_dir is None:
        raise UserError("--force has no effect without --output-dir, the folder cleaned into")
    network, _ = inputs.model_to_apply(settings, ("rmse", "noisy_input"))
    where = settings.input, settings.output_dir
    return page_cleaning.clean_files(network, *where, options, settings.force, settings.dask)


def patches(settings, office):
    """Return the stream of (dirty, clean) batches of a recipe.

    `published` trains on whole pages, the others on patches at the scan's own resolution: of the
    training pages, of synthetic pages, of the training pages' text under synthetic dirt, and with
    the U-Net of synthetic old pages.
    """
    if settings.recipe == "published":
        dirty, clean = whole_pages(office.train)

        def make_batch(chosen, seed):
            return dirty[chosen], clean[chosen]

        return batches.Batches(settings, len(dirty), make_batch)

    print("Making synthetic pages ...", flush=True)
    count = 12 if settings.limit else SYNTHETIC_PAGES
    more = [
        Page("", kind, dirty, clean)
        for dirty, clean, kind, _ in pages.pages(
            count, seed=batches.seed_for(settings.seed, "pages")
        )
    ]
    for number, page in enumerate(office.train[::2]):
        dirty = pages.add_stains(page.clean, batches.seed_for(settings.seed, "stains", number))
        more.append(Page(page.name, "", dirty, page.clean))
    old_share = OLD_SHARE[settings.architecture]
    synthetic_share = SYNTHETIC_SHARE[settings.architecture]
    side = PATCH[settings.architecture]
    sheets = None
    if old_share:
        some = min(20, OLD_SHEETS) if settings.limit else OLD_SHEETS
        sheets = old_pages.Sheets(some, batches.seed_for(settings.seed, "old pages"))

    def make_batch(chosen, seed):
        rng = np.random.default_rng(seed)
        pairs, weights = [], []
        for index in chosen:
            kind = rng.random()
            weights.append(1.0 if kind < old_share else OFFICE_WEIGHT)
            if kind < old_share:
                pairs.append(sheets.patch(rng, side))
            elif kind < old_share + synthetic_share:
                pairs.append(cut_patch(more[rng.integers(len(more))], side, True, rng))
            else:
                page = office.train[index // PATCHES_PER_PAGE]
                pairs.append(cut_patch(page, side, False, rng))
        dirty, clean = (np.stack(part)[..., np.newaxis] for part in zip(*pairs, strict=True))
        weights = np.array(weights, "float32")[:, np.newaxis, np.newaxis]
        return (dirty, clean, weights) if old_share else (dirty, clean)

    return batches.Batches(settings, PATCHES_PER_PAGE * len(office.train), make_batch)


def cut_patch(page, patch, vary, rng):
    """Return (dirty, clean), each float32 (patch, patch) in [0, 1], from some place in a page.

    It may be turned over. With `vary` it may be shown at another size, and at another brightness
    and contrast: what other scanners make of other pages.
    """
    zoom = rng.uniform(0.7, 2.5) if vary and rng.random() < 0.3 else 1
    height, width = page.dirty.shape[:2]
    side = min(round(patch / zoom), height, width)
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    flip = slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1]))
    pair = []
    for picture in (page.dirty, page.clean):
        part = picture[top : top + side, left : left + side, 0][flip]
        if side != patch:
            part = Image.fromarray(part).resize((patch, patch), Image.Resampling.BICUBIC)
        pair.append(np.asarray(part, "float32") / 255)
    dirty, clean = pair
    if vary and rng.random() < 0.5:
        dirty = np.clip(dirty * rng.uniform(0.85, 1.1) + rng.uniform(-0.04, 0.04), 0, 1)
        dirty = dirty ** np.float32(rng.uniform(0.8, 1.25))
    return dirty, clean


def whole_pages(pages):
    """Return pages of mixed sizes at one size, the smaller ones continued as in a mirror.

    Args:
        pages: a list of `Page`.

    Returns:
        (dirty, clean): float32 arrays of shape (n, height, width, 1), values in [0, 1], sides
        multiples of 32.
    """
    sides = np.max([page.dirty.shape[:2] for page in pages], axis=0)
    height, width = (-(-side // 32) * 32 for side in sides)

    def at_one_size(picture):
        missing = [(0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)]
        return np.pad(picture, missing, mode="symmetric").astype("float32") / 255

    return tuple(
        np.stack([at_one_size(getattr(page, part)) for page in pages])
        for part in ("dirty", "clean")
    )


def page_at_300_dpi(limit=None):
    """Return a synthetic `Page` of A6 (1748x1240 pixels) at 300 dpi, smaller under a limit."""
    height, width = (600, 420) if limit else (1748, 1240)
    [(dirty, clean, kind, _)] = pages.pages(
        1, seed=batches.seed_for("300 dpi"), height=height, width=width, scale=3
    )
    return Page("300 dpi", kind, dirty, clean)


def evaluate(clean, pages):
    """Return how well a function cleans pages.

    Args:
        clean: from a dirty page to a clean one, as `page_cleaning.cleaner` returns it.
        pages: a list of `Page`.

    Returns:
        {metric: value}: `rmse`, pooled over all pixels, `psnr`, the mean over pages in dB, and
        `rmse_` with the name of each kind of dirt.
    """
    errors = {}
    for page in pages:
        cleaned = clean(page.dirty.astype("float32") / 255)
        error = np.square(cleaned - page.clean.astype("float32") / 255)
        errors.setdefault(page.kind, []).append(error.ravel())
    every = [error for kind in errors.values() for error in kind]
    with np.errstate(divide="ignore"):
        psnr = float(np.mean([-10 * np.log10(error.mean(dtype="float64")) for error in every]))

    def root_mean(errors):
        return float(np.sqrt(np.concatenate(errors).mean(dtype="float64")))

    kinds = {f"rmse_{kind}": root_mean(errors[kind]) for kind in sorted(errors)}
    return {"rmse": root_mean(every), "psnr": psnr, **kinds}


def background_median(page, window=21):
    """Return a page, shape (height, width, 1), divided by its background: a median over squares.

    `window` is their side in pixels; half of what lies in each must be paper.
    """
    levels = np.round(page[..., 0] * 255).astype(np.uint8)
    background = rank.median(levels, np.ones((window, window), bool))[..., np.newaxis]
    return np.clip(page * 255 / np.maximum(background, 1), 0, 1).astype("float32")


def old_pages_to_test(limit=None):
    """Return synthetic `Page`s as archives have them, none of whose sheets was trained on."""
    sheets = old_pages.Sheets(4 if limit else 16, batches.seed_for("old pages", "test"))
    pages = []
    for number in range(len(sheets.inks)):
        pair = sheets.patch(np.random.default_rng(batches.seed_for("old page", number)), 480)
        dirty, clean = (np.round(x * 255).astype(np.uint8)[..., np.newaxis] for x in pair)
        pages.append(Page(str(number), "old", dirty, clean))
    return pages


def f_measure(found, truth):
    """Return the harmonic mean of precision and recall of two bool arrays, 0 to 1.

    As the DIBCO contests rank binarisation: Gatos et al. 2009,
    https://doi.org/10.1109/ICDAR.2009.246
    """
    both = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / both if both else 1.0


def ink_found(clean, page):
    """Return the F-measure of the ink on a cleaned `Page`, found by Otsu's threshold, 0 to 1."""
    cleaned = clean(page.dirty.astype("float32") / 255)
    return f_measure(metrics.ink(cleaned), page.clean < 128)


def plot_office(run, office, cleaners, results):
    """Write a figure of pieces of four test pages, each with other dirt, other text and face."""
    kinds = sorted({page.kind for page in office.test})
    of_kind = {kind: [page for page in office.test if page.kind == kind] for kind in kinds}
    rows = {}
    for number in range(4):
        kind = kinds[number % len(kinds)]
        page = of_kind[kind][(2 * number + 1) % len(of_kind[kind])]
        dirty, clean = (x.astype("float32") / 255 for x in (page.dirty, page.clean))
        # A page of NoisyOffice is 540 pixels wide; of a larger one the piece is larger, too.
        wide = max(240, page.dirty.shape[1] * 4 // 9)
        window = dirtiest_piece(dirty, clean, wide * 5 // 12, wide)
        images = [restore(dirty)[window] for restore in cleaners.values()] + [clean[window]]
        rows[kind if len(kinds) > 1 else page.name] = images
    titles = [f"{TITLES[name]}, RMSE {results[name]['rmse']:.3f}" for name in cleaners]
    title = "Pieces of four test pages, whose text and dirt were never trained on"
    run.plot(
        *(plotting.image_rows, rows, "pages.png"),
        title if kinds != ["own"] else "Pieces of test pages",
        "Dividing by a median over 21x21 pixels removes slow shades and leaves what is as small "
        "as a letter. A network that sees far enough tells letters from dirt. RMSE is pooled over "
        "all test pages, grey values from 0 to 1.",
        cell=(2.5, 1.1),
        column_titles=[*titles, "clean"],
    )


def dirtiest_piece(dirty, clean, high, wide):
    """Return two slices, rows and columns, of a piece of a page where heavy dirt lies on letters.

    Args:
        dirty, clean: float32 in [0, 1], shape (height, width, 1).
        high, wide: of the piece, in pixels; on a smaller page it is as large as that.
    """
    dirt, letters = (
        ndimage.uniform_filter(part[..., 0], (high, wide))
        for part in (np.abs(dirty - clean), 1 - clean)
    )
    dirt *= np.minimum(letters, 0.12)
    middle = np.unravel_index(dirt.argmax(), dirt.shape)
    firsts = [
        int(np.clip(at - side // 2, 0, max(whole - side, 0)))
        for at, side, whole in zip(middle, (high, wide), dirt.shape, strict=True)
    ]
    return slice(firsts[0], firsts[0] + high), slice(firsts[1], firsts[1] + wide)


def plot_others(run, large, old, cleaners, results):
    """Write two figures of pages of other kinds: at 300 dpi, and old ones."""
    shown = ["noisy_input", "background_median", run.settings.architecture]
    titles = [TITLES[name] for name in shown]
    dirty, clean = (x.astype("float32") / 255 for x in (large.dirty, large.clean))
    high, wide = 400, 420
    window = dirtiest_piece(dirty, clean, high, wide)
    run.plot(
        *(plotting.image_rows, {"": [cleaners[name](dirty)[window] for name in shown]}),
        "page_300dpi.png",
        "A heavy stain on a synthetic page at 300 dpi",
        "RMSE on the whole page: "
        + ", ".join(f"{TITLES[name]} {results[name]['rmse_300dpi']:.3f}" for name in shown)
        + ". Letters are three times as large as on NoisyOffice's pages.",
        cell=(4.2, 4.2 * high / wide),
        column_titles=titles,
        shown="a synthetic page",
    )
    found = {"scanned page": textures.pictures(["page.png"])["page.png"][..., np.newaxis]}
    piece = slice(190), slice(384)
    readable = [page for page in old if 0.03 < (page.clean[piece] < 128).mean() < 0.3]
    readable = [page for page in readable if ink_found(cleaners["background_median"], page) > 0.6]
    found |= {f"synthetic {n}": page.dirty[piece] for n, page in enumerate(readable[:3], 1)}
    rows = {name: page / np.float32(255) for name, page in found.items()}
    run.plot(
        plotting.image_rows,
        {name: [cleaners[kind](page) for kind in shown] for name, page in rows.items()},
        "old_pages.png",
        "Old pages: faint and uneven ink, grain, the other side showing through",
        "F-measure of the ink at Otsu's threshold, mean over synthetic pages: "
        + ", ".join(f"{TITLES[name]} {results[name]['f_old_pages']:.2f}" for name in shown)
        + ". The first row is a page that scikit-image ships.",
        cell=(4, 2),
        column_titles=titles,
        shown=f"a page of scikit-image, {len(old)} synthetic ones",
    )


if __name__ == "__main__":
    command_line.start(main)
