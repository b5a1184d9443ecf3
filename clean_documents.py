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

This is `--architecture unet`, 274,201 parameters. `--architecture tutorial` has 38,145: Conv 64
3x3, MaxPool 2, Conv 64 3x3, UpSampling 2, and Conv 1 3x3 with a sigmoid, each conv relu.

Run it:
  python clean_documents.py --input scans/*.jpg     clean scans of yours, no training needed
  python clean_documents.py                         train on NoisyOffice and on drawn pages
  python clean_documents.py --synthetic             train on drawn pages alone
  python clean_documents.py --architecture tutorial --recipe tutorial

The loss is the mean squared error over all pixels; its root, RMSE, is what gets reported.

The lesson. To tell a stain from a letter a network must look further than a letter is wide. The
tutorial's sees 10 pixels; three poolings let this one see about 100. And it starts from the page:
it learns what to add to it, instead of drawing every letter anew.

An honest split. Four files of NoisyOffice share each clean page, and pages of one family share
their text and their dirt. The tutorial splits by file, so that it is tested on what it trained on.
Here the test pages are of another family, with other text and other stains. See `load_documents`
in common/data.py.

Any page. The tutorial squeezes each page to 258x540 pixels. The networks here are convolutional,
train on patches at the scan's own resolution, and clean whole pages in overlapping tiles, so that
memory does not grow with the page. A quarter of the patches come from drawn pages with drawn dirt
(common/synthetic.py), in other faces, sizes, light and resolutions than NoisyOffice has.

What helped, as RMSE on parts of pages whose text and dirt were not trained on, after 300 steps:
adding to the input, 0.029, where a sigmoid with cross-entropy gave 0.036. A gain beside the offset
made no difference. Fewer drawn patches help on NoisyOffice (a quarter rather than half of them:
0.026 and 0.029 after 600 steps); they are there for all other pages.

Where it comes from. Network and recipe `tutorial` are those of a blog tutorial on Kaggle's
"Denoising Dirty Documents": Adam at its default rate, batches of 16, up to 200 epochs, patience 5.
Its pages are cut to 256x536 here, not squeezed. NoisyOffice: Castro-Bleda et al.,
https://archive.ics.uci.edu/dataset/318/noisyoffice. U-Net: Ronneberger et al. 2015,
https://arxiv.org/abs/1505.04597; adding to the input: Zhang et al. 2017,
https://arxiv.org/abs/1608.03981.
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import data, documents, metrics, plotting, synthetic, training

import keras
import numpy as np
from keras import layers
from PIL import Image

RECIPES = {
    "unet": {
        "fast": {"epochs": 30, "batch_size": 8, "learning_rate": 0.008, "longest_epoch": 200},
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
PATCHES_PER_PAGE = 32  # in an epoch
DRAWN = 120  # pages drawn in addition, so that the network sees more fonts and more dirt,
DRAWN_SHARE = 0.25  # and the share of patches from those
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
        return documents.clean_files(args, "unet")

    office = data.load_documents(args.data_dir, args.synthetic, args.limit, args.seed)
    model = training.given_model(args)
    run = training.Run(args, office)

    if model is None:
        batches = make_batches(args, office)
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
            validation_data=documents.windows(office.validation, WINDOW, WINDOW),
            validation_batch_size=4,
            callbacks=run.callbacks(model),
            shuffle=False,  # the batches come shuffled
            verbose=run.verbose,
        )
        model = run.best_model()

    # The test pages, once. The other network is shown too if it has been trained on the same.
    print(f"Evaluating on {len(office.test)} test pages ...", flush=True)
    networks = {args.architecture: model, **run.other_models()}
    cleaners = {
        "noisy_input": lambda dirty: dirty,
        "background_median": metrics.background_median,
    }
    for name in filter(networks.get, ["tutorial", "unet"]):
        cleaners[name] = documents.cleaner(networks[name])
    results = {name: documents.evaluate(clean, office.test) for name, clean in cleaners.items()}
    # A page scanned at three times their resolution, with the filter's window as much larger.
    large = documents.page_at_300_dpi(args.limit)
    large_cleaners = {**cleaners, "background_median": lambda x: metrics.background_median(x, 63)}
    for name, clean in large_cleaners.items():
        results[name]["rmse_300dpi"] = documents.evaluate(clean, [large])["rmse"]

    draw(run, office, large, cleaners, results)
    run.draw_history("mean squared error")
    run.finish(model, results, args.architecture, others=networks.keys() - {args.architecture})
    plotting.wait_for_windows(args.show)


def make_batches(args, office):
    """Return the stream of (dirty, clean) batches of a recipe.

    `tutorial` trains on whole pages; `fast` on patches, most of them of the training pages, the
    others of drawn pages and of the training pages' text under drawn dirt.
    """
    if args.recipe == "tutorial":
        dirty, clean = documents.windows(office.train, WINDOW, 536)

        def make_batch(chosen, seed):
            return dirty[chosen], clean[chosen]

        return training.Batches(len(dirty), make_batch, args.batch_size, None, args.seed)

    print(f"Drawing {DRAWN} pages more, and dirt ...", flush=True)
    drawn = [
        data.Page("", kind, dirty, clean)
        for dirty, clean, kind, _ in synthetic.pages(DRAWN, seed=[args.seed, 2])
    ]
    for number, page in enumerate(office.train[::2]):
        dirty = synthetic.soil(page.clean, seed=[args.seed, 3, number])
        drawn.append(data.Page(page.name, "", dirty, page.clean))

    def make_batch(chosen, seed):
        rng = np.random.default_rng(seed)
        pairs = []
        for _ in chosen:
            vary = rng.random() < DRAWN_SHARE
            pages = drawn if vary else office.train
            pairs.append(draw_patch(pages[rng.integers(len(pages))], vary, rng))
        return tuple(np.stack(part)[..., np.newaxis] for part in zip(*pairs, strict=True))

    patches = PATCHES_PER_PAGE * len(office.train)
    # On drawn pages alone there is less to learn; half the steps do.
    longest = args.longest_epoch // (2 if office.source == "synthetic" else 1)
    return training.Batches(patches, make_batch, args.batch_size, longest, args.seed)


def draw_patch(page, vary, rng):
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


def draw(run, office, large, cleaners, results):
    """Write two figures: pieces of four test pages, and a page at 300 dpi."""
    show, footer = run.args.show, f"Data: {office}."
    window = (slice(20, 150), slice(20, 300))
    pages = {page.kind: page for page in reversed(office.test)}
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
        f"the {len(office.test)} test pages, grey values from 0 to 1.\n{footer}",
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
        f"Before, and cleaned by the {TITLES[name]}: RMSE "
        f"{results['noisy_input']['rmse_300dpi']:.3f} and "
        f"{results[name]['rmse_300dpi']:.3f}. Letters are three times as large as on the "
        f"pages that the network is tested on.\n{footer}",
        show,
        cell=(4.2, 4.2 * dirty.shape[0] / dirty.shape[1]),
    )


if __name__ == "__main__":
    training.start(main)
