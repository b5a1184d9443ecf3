"""Train a network that removes coffee, folds, footprints and wrinkles from scanned pages.

    dirty patch             (128, 128, 1)           any height and width will do
      Conv 12 3x3, twice    (128, 128, 12) ---------------------------------.
      MaxPool 2             (64, 64, 12)                                    |
      Conv 24 3x3, twice    (64, 64, 24) -------------------------.         |
      MaxPool 2             (32, 32, 24)                          |         |
      Conv 48 3x3, twice    (32, 32, 48) ---------------.         |         |
      MaxPool 2             (16, 16, 48)                |         |         |
      Conv 96 3x3, twice    (16, 16, 96)                |         |         |
      UpSampling 2          (32, 32, 96)   <------------'         |         |
      Conv 48 3x3, twice    (32, 32, 48)                          |         |
      UpSampling 2          (64, 64, 48)   <----------------------'         |
      Conv 24 3x3, twice    (64, 64, 24)                                    |
      UpSampling 2          (128, 128, 24) <--------------------------------'
      Conv 12 3x3, twice    (128, 128, 12)
      Conv 1 3x3            (128, 128, 1)
    clean patch = dirty patch + that, clipped to [0, 1]

This is `--architecture unet`, 274,201 parameters; the article's `autoencoder` has 38,145.

Run it:
  python clean_documents.py --input scans/*.jpg   clean scans of yours, no training needed
  python clean_documents.py                       train on NoisyOffice and on synthetic pages
  python clean_documents.py --synthetic           train on synthetic pages alone
  python clean_documents.py --architecture autoencoder --recipe published

Network and recipe `published` are those of a blog article on Kaggle's "Denoising Dirty Documents".
U-Net: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import batches, command_line, metrics, noisy_office, plotting, run_folder
from common import trained_models
from common.noisy_office import Page
from common.command_line import flag
from applications import inputs, page_cleaning
from synthetic import pages

import dataclasses

import keras
import numpy as np
from keras import layers, ops
from PIL import Image

PUBLISHED = {"epochs": 200, "batch_size": 16, "learning_rate": 0.001, "patience": 5}
RECIPES = {
    "unet": {
        "fast": {"epochs": 30, "batch_size": 8, "learning_rate": 0.008, "max_steps_per_epoch": 200},
        "published": PUBLISHED,
    },
    "autoencoder": {
        "fast": {"epochs": 10, "batch_size": 8, "learning_rate": 0.005, "max_steps_per_epoch": 100},
        "published": PUBLISHED,
    },
}
PATCH = 128  # pixels, height and width of a training patch
PATCHES_PER_PAGE = 32  # in an epoch
SYNTHETIC_PAGES = 120  # in addition, so that the network sees more fonts and more dirt,
SYNTHETIC_SHARE = 0.25  # and the share of patches from those
FIGURES = ["pages.png", "page_300dpi.png"]
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
    architecture: str = flag("default: unet", choices=list(names), only=())
    format: str = flag(
        "of what --input cleans (default: same)",
        *("same", str, ("input",)),
        choices=["same", "pdf", "tiff", "png", "jpeg"],
    )
    bilevel: bool = flag("black and white, in 1 bit", False, bool, ("input",))
    grey: bool = flag("coloured ink turns grey", False, bool, ("input",))
    force: bool = flag("replace what was cleaned into --output-dir", False, bool, ("input",))


def build_unet(height=None, width=None):
    """Return the U-Net: (n, height, width, 1) to the same shape, values in [0, 1].

    Height and width are multiples of 8; None leaves them open. To tell a stain from a letter a
    network must look further than a letter is wide: three poolings let this one see about 100
    pixels. And it starts from the page: it learns what to add to it.
    """
    conv = {"activation": "relu", "padding": "same", "kernel_initializer": "he_normal"}
    dirty = keras.Input((height, width, 1), name="dirty")
    x, skips = dirty, []
    for filters in (12, 24, 48):
        x = layers.Conv2D(filters, 3, **conv)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(96, 3, **conv)(x)
    x = layers.Conv2D(96, 3, **conv)(x)
    for filters in (48, 24, 12):
        x = layers.UpSampling2D(2)(x)
        x = layers.Concatenate()([x, skips.pop()])
        x = layers.Conv2D(filters, 3, **conv)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)
    change = layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros", name="change")(x)
    clean = dirty + change
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
        options = page_cleaning.Options(settings.format, settings.bilevel, settings.grey)
        network, _ = inputs.model_to_apply(settings, ("rmse", "noisy_input"))
        return page_cleaning.clean_files(
            network, settings.input, settings.output_dir, options, settings.force
        )

    # Four files of NoisyOffice share each clean page, and pages of one family their text and dirt.
    # The article splits by file, so that it is tested on what it trained on. Here the test pages
    # are of another family.
    model, settings = trained_models.model_to_evaluate(settings)
    office = noisy_office.load_noisy_office(
        settings.data_dir, settings.synthetic, settings.limit, settings.seed
    )
    with run_folder.RunFolder(settings, office, FIGURES) as run:
        if model is None:
            stream = patches(settings, office)
            keras.utils.set_random_seed(settings.seed)
            model = BUILDERS[settings.architecture]()
            model.summary()
            optimizer = keras.optimizers.Adam(settings.learning_rate)
            if settings.recipe == "fast":
                steps = settings.epochs * stream.steps_per_epoch
                schedule = batches.warm_up_and_cosine(settings.learning_rate, steps)
                optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
            model.compile(optimizer, loss="mse")
            model.fit(
                stream.dataset(run.first_epoch),
                steps_per_epoch=stream.steps_per_epoch,
                epochs=settings.epochs,
                initial_epoch=run.first_epoch,
                validation_data=whole_pages(office.validation),
                validation_batch_size=4,
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
            "background_median": metrics.background_median,
            **{name: page_cleaning.cleaner(networks[name]) for name in RECIPES if name in networks},
        }
        results = {name: evaluate(clean, office.test) for name, clean in cleaners.items()}
        # A page scanned at three times their resolution, with the filter's window as much larger.
        large = page_at_300_dpi(settings.limit)
        wider = {**cleaners, "background_median": lambda x: metrics.background_median(x, 63)}
        for name, clean in wider.items():
            results[name]["rmse_300dpi"] = evaluate(clean, [large])["rmse"]
        plot(run, office, large, cleaners, results)
        run.plot_history("mean squared error")
        run.finish(model, results, settings.architecture, others=networks)
    plotting.wait_for_windows(settings.show)


def patches(settings, office):
    """Return the stream of (dirty, clean) batches of a recipe.

    `published` trains on whole pages; `fast` on patches at the scan's own resolution,
    most of them of the training pages, the others of synthetic pages and of the training pages'
    text under synthetic dirt.
    """
    if settings.recipe == "published":
        dirty, clean = whole_pages(office.train)

        def make_batch(chosen, seed):
            return dirty[chosen], clean[chosen]

        return batches.for_recipe(settings, len(dirty), make_batch)

    print(f"Making {SYNTHETIC_PAGES} synthetic pages, and dirt ...", flush=True)
    more = [
        Page("", kind, dirty, clean)
        for dirty, clean, kind, _ in pages.pages(
            SYNTHETIC_PAGES, seed=batches.seed_for(settings.seed, "pages")
        )
    ]
    for number, page in enumerate(office.train[::2]):
        dirty = pages.add_stains(page.clean, batches.seed_for(settings.seed, "stains", number))
        more.append(Page(page.name, "", dirty, page.clean))

    def make_batch(chosen, seed):
        rng = np.random.default_rng(seed)
        pairs = []
        for _ in chosen:
            vary = rng.random() < SYNTHETIC_SHARE
            chosen_from = more if vary else office.train
            pairs.append(cut_patch(chosen_from[rng.integers(len(chosen_from))], vary, rng))
        return tuple(np.stack(part)[..., np.newaxis] for part in zip(*pairs, strict=True))

    if office.source == "synthetic":  # there is less to learn; half the steps do
        settings = dataclasses.replace(
            settings, max_steps_per_epoch=settings.max_steps_per_epoch // 2
        )
    return batches.for_recipe(settings, PATCHES_PER_PAGE * len(office.train), make_batch)


def cut_patch(page, vary, rng):
    """Return (dirty, clean), each float32 (PATCH, PATCH) in [0, 1], from some place in a page.

    It may be turned over. With `vary` it may be shown at another size, and at another brightness
    and contrast: what other scanners make of other pages.
    """
    zoom = rng.uniform(0.7, 2.5) if vary and rng.random() < 0.3 else 1
    height, width = page.dirty.shape[:2]
    side = min(round(PATCH / zoom), height, width)
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    flip = slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1]))
    pair = []
    for picture in (page.dirty, page.clean):
        part = picture[top : top + side, left : left + side, 0][flip]
        if side != PATCH:
            part = Image.fromarray(part).resize((PATCH, PATCH), Image.Resampling.BICUBIC)
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
        multiples of 8.
    """
    sides = np.max([page.dirty.shape[:2] for page in pages], axis=0)
    height, width = (-(-side // 8) * 8 for side in sides)

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


def plot(run, office, large, cleaners, results):
    """Write two figures: pieces of four test pages, and a page at 300 dpi."""
    window = (slice(20, 150), slice(20, 300))
    of_kind = {page.kind: page for page in reversed(office.test)}
    rows = {}
    for kind in filter(of_kind.get, pages.KINDS):
        page = of_kind[kind]
        dirty, clean = (x.astype("float32") / 255 for x in (page.dirty, page.clean))
        rows[kind] = [restore(dirty)[window] for restore in cleaners.values()] + [clean[window]]
    titles = [f"{TITLES[name]}, RMSE {results[name]['rmse']:.3f}" for name in cleaners]
    run.plot(
        *(plotting.image_rows, rows, "pages.png"),
        "Pieces of four test pages, whose text and dirt were never trained on",
        "Dividing by a median over 21x21 pixels removes slow shades and leaves what is as small "
        "as a letter. A network that sees far enough tells letters from dirt. RMSE is pooled over "
        "all test pages, grey values from 0 to 1.",
        cell=(2.5, 1.2),
        column_titles=[*titles, "clean"],
    )
    dirty, name = large.dirty.astype("float32") / 255, run.settings.architecture
    before, after = (results[row]["rmse_300dpi"] for row in ("noisy_input", name))
    run.plot(
        *(plotting.image_rows, {"": [dirty, cleaners[name](dirty)]}, "page_300dpi.png"),
        "A synthetic page at 300 dpi",
        f"Before, and cleaned by the {TITLES[name]}: RMSE {before:.3f} and {after:.3f}. Letters "
        "are three times as large as on the pages that the network is tested on.",
        cell=(4.2, 4.2 * dirty.shape[0] / dirty.shape[1]),
    )


if __name__ == "__main__":
    command_line.start(main)
