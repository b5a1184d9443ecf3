"""Train a network that takes coffee, folds, footprints and wrinkles off scanned pages.

    dirty patch             (128, 128, 1)              any height and width will do
      Conv 12 3x3, twice    (128, 128, 12) - - - - - - - - - - - - - - .
      MaxPool 2             (64, 64, 12)                               '
      Conv 24 3x3, twice    (64, 64, 24) - - - - - - - - - - - .       '
      MaxPool 2             (32, 32, 24)                       '       '
      Conv 48 3x3, twice    (32, 32, 48) - - - - - - - .       '       '
      MaxPool 2             (16, 16, 48)               '       '       '
      Conv 96 3x3, twice    (16, 16, 96)               '       '       '
      UpSampling 2          (32, 32, 96)   <- - - - - -'       '       '
      Conv 48 3x3, twice    (32, 32, 48)                       '       '
      UpSampling 2          (64, 64, 48)           <- - - - - -'       '
      Conv 24 3x3, twice    (64, 64, 24)                               '
      UpSampling 2          (128, 128, 24)                 <- - - - - -'
      Conv 12 3x3, twice    (128, 128, 12)
      Conv 1 3x3            (128, 128, 1)
    clean patch = dirty patch + that, clipped to [0, 1]

`--architecture unet`, the default, 274,201 parameters. `--architecture tutorial` has 38,145:
Conv 64 3x3, MaxPool 2, Conv 64 3x3, UpSampling 2, Conv 1 3x3 sigmoid.

Run it:
  python clean_documents.py --input scans/*.jpg     clean your own scans, no training needed
  python clean_documents.py                         train
  python clean_documents.py --architecture tutorial --recipe tutorial
  python clean_documents.py --synthetic             train on drawn pages alone
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, data, images, metrics, plotting, synthetic, training

import os
import sys

import keras
import numpy as np
from keras import layers
from PIL import Image

RECIPES = {
    "unet": {
        "fast": {"epochs": 20, "batch_size": 8, "learning_rate": 0.005, "longest_epoch": 200},
        "tutorial": {"epochs": 200, "batch_size": 16, "learning_rate": 0.001},
    },
    "tutorial": {
        "fast": {"epochs": 10, "batch_size": 8, "learning_rate": 0.005, "longest_epoch": 100},
        "tutorial": {"epochs": 200, "batch_size": 16, "learning_rate": 0.001},
    },
}
for recipes in RECIPES.values():
    recipes["tutorial"].update(longest_epoch=None, patience=5)
PATCH = 128  # pixels, height and width of a training patch
WINDOW = 256  # pixels, height and width of a piece of a validation page
DRAWN = 120  # pages drawn in addition, so that the network sees more fonts and more dirt
TILE, MARGIN = 512, 64  # pixels; nothing that is further away than the margin changes a pixel
TITLES = {
    "noisy_input": "dirty",
    "background_median": "divided by median",
    "tutorial": "autoencoder",
    "unet": "U-Net",
}


def build_unet(height=None, width=None):
    """Return the U-Net: (n, height, width, 1) to the same shape, values in [0, 1].

    Height and width are multiples of 8; None leaves them open.
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
    change = layers.Conv2D(1, 3, padding="same", name="change")(x)
    clean = layers.Add()([dirty, change])
    clean = layers.ReLU(max_value=1, name="clean")(clean)  # clips to [0, 1]
    return keras.Model(dirty, clean, name="clean_documents")


def build_tutorial(height=None, width=None):
    """Return the tutorial's autoencoder: (n, height, width, 1) to the same shape, in [0, 1].

    Height and width are even; None leaves them open.
    """
    dirty = keras.Input((height, width, 1), name="dirty")
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(dirty)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    clean = layers.Conv2D(1, 3, activation="sigmoid", padding="same", name="clean")(x)
    return keras.Model(dirty, clean, name="clean_documents_tutorial")


BUILDERS = {"unet": build_unet, "tutorial": build_tutorial}


def main(argv=None):
    parser = training.argument_parser(__file__, __doc__)
    add = parser.add_argument
    add("--architecture", choices=list(RECIPES), help="unet (default), or the tutorial's network")
    args = training.parse(parser, RECIPES, argv)
    plotting.set_up(args.show)
    if args.input:
        return clean_files(args)

    documents = data.load_documents(args.data_dir, args.synthetic, args.limit, args.seed)
    model = training.given_model(args)
    run = training.Run(args, documents)

    if model is None:
        batches = make_batches(args, documents)
        keras.utils.set_random_seed(args.seed)
        model = BUILDERS[args.architecture]()
        model.summary()
        if args.recipe == "fast":
            steps = args.epochs * batches.steps_per_epoch
            schedule = training.warm_up_and_cosine(args.learning_rate, steps)
            optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
        else:
            optimizer = keras.optimizers.Adam(args.learning_rate)
        model.compile(optimizer, loss="mse")
        model.fit(
            batches.from_epoch(run.first_epoch),
            steps_per_epoch=batches.steps_per_epoch,
            epochs=args.epochs,
            initial_epoch=run.first_epoch,
            validation_data=windows(documents.validation, WINDOW, WINDOW),
            validation_batch_size=4,
            callbacks=run.callbacks(model),
            shuffle=False,  # the batches come shuffled
            verbose=run.verbose,
        )
        model = run.best_model()

    # The test pages, once. The other network is shown too if it has been trained on the same.
    print(f"Evaluating on {len(documents.test)} test pages ...", flush=True)
    networks = {args.architecture: model, **run.other_models()}
    cleaners = {
        "noisy_input": lambda dirty: dirty,
        "background_median": metrics.background_median,
        **{name: cleaner(networks[name]) for name in reversed(RECIPES) if name in networks},
    }
    results = {name: evaluate(clean, documents.test) for name, clean in cleaners.items()}
    # A page scanned at three times their resolution, with the filter's window as much larger.
    large = large_page(args.limit)
    large_cleaners = {**cleaners, "background_median": lambda x: metrics.background_median(x, 63)}
    for name, clean in large_cleaners.items():
        results[name]["rmse_300dpi"] = evaluate(clean, [large])["rmse"]

    draw(run, documents, large, cleaners, results)
    run.draw_history("mean squared error")
    run.finish(model, results, args.architecture, others=networks.keys() - {args.architecture})
    plotting.wait_for_windows(args.show)


def draw_patch(pages, rng):
    """Return (dirty, clean), each (PATCH, PATCH) in [0, 1], from a place in one of the pages.

    A third of the patches are shown at another size, half at another brightness and contrast, and
    any may be turned over: so the network can't learn the pages, and learns other scanners too.
    """
    page = pages[rng.integers(len(pages))]
    zoom = rng.uniform(0.7, 2.5) if rng.random() < 1 / 3 else 1
    height, width = page.dirty.shape[:2]
    side = min(round(PATCH / zoom), height, width)
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    flip = (slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1])))
    pair = []
    for picture in (page.dirty, page.clean):
        part = picture[top : top + side, left : left + side, 0][flip]
        if side != PATCH:
            part = Image.fromarray(part).resize((PATCH, PATCH), Image.Resampling.BICUBIC)
        pair.append(np.asarray(part, "float32") / 255)
    dirty, clean = pair
    if rng.random() < 0.5:
        dirty = np.clip(dirty * rng.uniform(0.85, 1.1) + rng.uniform(-0.04, 0.04), 0, 1)
        dirty = dirty ** rng.uniform(0.8, 1.25)
    return dirty, clean


def make_batches(args, documents):
    """Return the stream of (dirty, clean) batches of a recipe.

    `tutorial` trains on whole pages; `fast` on patches of training pages, of the same clean pages
    under drawn dirt, and of drawn pages.
    """
    if args.recipe == "tutorial":
        dirty, clean = windows(documents.train, WINDOW, 536)

        def make_batch(chosen, seed):
            return dirty[chosen], clean[chosen]

        return training.Batches(len(dirty), make_batch, args.batch_size, None, args.seed)

    print(f"Drawing {DRAWN} pages more, and dirt ...", flush=True)
    drawn = [
        data.Page("", kind, dirty, clean)
        for dirty, clean, kind, _ in synthetic.pages(DRAWN, seed=[args.seed, 2])
    ]
    for number, page in enumerate(documents.train[::2]):
        dirty = synthetic.soil(page.clean, seed=[args.seed, 3, number])
        drawn.append(data.Page(page.name, "", dirty, page.clean))

    def make_batch(chosen, seed):
        rng, pools = np.random.default_rng(seed), (documents.train, drawn)
        pairs = [draw_patch(pools[rng.integers(2)], rng) for _ in chosen]
        return tuple(np.stack(part)[..., np.newaxis] for part in zip(*pairs, strict=True))

    count = args.batch_size * args.longest_epoch
    return training.Batches(count, make_batch, args.batch_size, args.longest_epoch, args.seed)


def windows(pages, height, width):
    """Return (dirty, clean) windows of one size from pages of mixed sizes, side by side.

    Returns:
        Two float32 arrays of shape (n, height, width, 1).
    """
    pairs = [
        [picture[top : top + height, left : left + width] for picture in (page.dirty, page.clean)]
        for page in pages
        for top in range(0, page.dirty.shape[0] - height + 1, height)
        for left in range(0, page.dirty.shape[1] - width + 1, width)
    ]
    return tuple(np.stack(part).astype("float32") / 255 for part in zip(*pairs, strict=True))


def cleaner(network):
    """Return a function that cleans a page of any size, (height, width, 1), in tiles.

    So the network's memory does not grow with the page, and no seam shows: each tile is looked at
    with all around it that matters.
    """

    def clean(page):
        height, width = page.shape[:2]
        padded = images.pad_to_multiple(page, 8)
        cleaned = images.in_tiles(
            lambda tile: np.asarray(network(tile[np.newaxis], training=False))[0],
            padded,
            TILE,
            MARGIN,
        )
        return cleaned[:height, :width]

    return clean


def clean_files(args):
    """Write a clean copy of each --input file; return 1 if one of several could not be read."""
    trained = training.find_model(args, "unet")
    clean = cleaner(trained)
    pairs = images.targets(args.input, training.output_folder(args, "cleaned"))
    bar, failed = keras.utils.Progbar(len(pairs), unit_name="page"), 0
    for path, target in pairs:
        try:
            images.write_grey(target, clean(images.read_grey(path, ground="white")))
        except UserError as error:
            if len(pairs) == 1:
                raise
            print(f"\nclean_documents.py: error: {error}", file=sys.stderr, flush=True)
            failed += 1
        bar.add(1)
    print(f"\nWrote {len(pairs) - failed} pages to {pairs[0][1].parent}{os.sep}", flush=True)
    return 1 if failed else 0


def evaluate(clean, pages):
    """Return {metric: value} of a function that cleans pages, pooled, and for each kind of dirt."""
    errors = {}
    for page in pages:
        cleaned = clean(page.dirty.astype("float32") / 255)
        error = np.square(cleaned - page.clean.astype("float32") / 255)
        errors.setdefault(page.kind, []).append(error.ravel())
    every = [error for kind in errors.values() for error in kind]
    with np.errstate(divide="ignore"):
        psnr = np.mean([-10 * np.log10(error.mean()) for error in every])
    results = {"rmse": every, **{f"rmse_{kind}": errors[kind] for kind in sorted(errors)}}
    results = {
        name: float(np.sqrt(np.concatenate(parts).mean(dtype="float64")))
        for name, parts in results.items()
    }
    return {"rmse": results.pop("rmse"), "psnr": float(psnr), **results}


def large_page(limit):
    """Return a drawn page of A6 at 300 dpi, smaller under a limit."""
    height, width = (592, 416) if limit else (1748, 1240)
    [(dirty, clean, kind, _)] = synthetic.pages(1, seed=300, height=height, width=width, scale=3)
    return data.Page("300 dpi", kind, dirty, clean)


def draw(run, documents, large, cleaners, results):
    """Write two figures: pieces of four test pages, and a page at 300 dpi."""
    show, footer = run.args.show, f"Data: {documents}."
    window = (slice(20, 150), slice(20, 300))
    pages = {page.kind: page for page in reversed(documents.test)}
    rows = {}
    for kind in filter(pages.get, synthetic.KINDS):
        dirty, clean = (x.astype("float32") / 255 for x in (pages[kind].dirty, pages[kind].clean))
        rows[kind] = [restore(dirty)[window] for restore in cleaners.values()] + [clean[window]]
    heads = [f"{TITLES[name]}, RMSE {results[name]['rmse']:.3f}" for name in cleaners]
    plotting.image_rows(
        rows,
        run.folder / "pages.png",
        "Pieces of four test pages, whose text and dirt were never trained on",
        "Dividing by a median over 21x21 pixels takes away slow shades and leaves what is as small "
        "as a letter. A network that sees far enough tells letters from dirt. RMSE is pooled over "
        f"the {len(documents.test)} test pages, grey values from 0 to 1.\n{footer}",
        show,
        cell=(2.5, 1.2),
        heads=[*heads, "clean"],
    )
    dirty = large.dirty.astype("float32") / 255
    name = run.args.architecture
    plotting.image_rows(
        {"": [dirty, cleaners[name](dirty)]},
        run.folder / "page_300dpi.png",
        "A drawn page at 300 dpi",
        f"Before, and cleaned by the {TITLES[name]}: RMSE {results['noisy_input']['rmse_300dpi']:.3f}"
        f" and {results[name]['rmse_300dpi']:.3f}. Letters are three times as large as on the "
        f"pages that the network is tested on.\n{footer}",
        show,
        cell=(4.2, 4.2 * dirty.shape[0] / dirty.shape[1]),
    )


if __name__ == "__main__":
    training.start(main)
