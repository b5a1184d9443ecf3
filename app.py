"""A page in the browser to try the trained models on: five tabs, each a layer over tools/.

Examples:
  pip install -r requirements-app.txt
  python app.py                      then open http://127.0.0.1:7860
  python app.py --port 8000
  python app.py --host 0.0.0.0       for everyone who can reach this machine

Nothing leaves the machine: no analytics, no fonts or scripts of other hosts. Uploads lie in a
temporary folder for an hour at most, which is removed when the page ends.
"""

import dataclasses
import functools
import os
import re
import sys
import tempfile
import threading
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, which calls home
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
try:
    import gradio as gr
    import numpy as np
    import skimage
    import tyro
    from PIL import Image, ImageOps
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import FileResponse
    from starlette.routing import Route

    import denoise_fashion
    import latent_spaces
    import vae_fashion  # noqa: F401  registers the layers of its model
    from common import cli, images, metrics, noise, plotting, training
    from evaluation.denoise_fashion import fit_outlier_median
    from synthetic import clothes, digits, pages
    from tools import latents, scans, small_images, tiles
    from tools.messages import code, damage, photo
    from tools.messages.files import embed_in_file
except ImportError as error:
    print(f"error: {error}; pip install -r requirements-app.txt", file=sys.stderr)
    sys.exit(2)

MAX_MEGAPIXELS = 40  # of an upload
MIN_SHOWN, MAX_SHOWN = 280, 1_200  # pixels of the longer side of a picture on the page
CROP = 400  # pixels of the longer side of what noise is removed from
NOISES = {"salt and pepper": noise.salt_and_pepper, "Gaussian": noise.gaussian}
INKS = {
    "as it is": scans.Options(),
    "gray": scans.Options(gray=True),
    "black and white": scans.Options(bilevel=True),
}
SUFFIXES = [suffix for suffix in images.SUFFIXES if suffix != ".heic"]  # which cannot be read
PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")  # of scikit-image
GRAY_PHOTOS = ("camera.png", "coins.png", "moon.png")
ROOT = Path(__file__).parent
SERVED = {
    "docs/explorer.html": "text/html",
    "README.md": "text/plain",
    "LICENSE": "text/plain",
}
# With it the browser itself refuses to ask another host for anything.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
# Gradio's samples are buttons without a name, which a screen reader calls "submit".
NAME_SAMPLES = """() => new MutationObserver(() => {
  for (const image of document.querySelectorAll(".gallery-item:not([aria-label]) img"))
    image.closest("button").ariaLabel = "Sample " + image.src.split("/").pop();
}).observe(document.body, {childList: true, subtree: true})"""
CSS = """
html {scrollbar-gutter: stable}
html:has(.dark) {color-scheme: dark}  /* of the explorer, too */
.dark {--color-accent: var(--primary-400)}
.gradio-container > .app {padding: 12px clamp(12px, 2.5vw, 32px) !important}
.gallery-item .container {width: 56px !important; height: 56px !important}
/* Labels and buttons stand above a picture; in Gradio's own style they hide its corners. */
.picture {padding-top: 40px !important}
.picture .icon-button-wrapper {top: -36px !important}
/* How long the work of others took. */
.meta-text, .eta-bar {display: none !important}
"""
# A contrast of at least 4.5 between text and background.
THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"]).set(
    color_accent="*primary_600",
    body_text_color_subdued="*neutral_600",
    input_placeholder_color="*neutral_600",
    input_placeholder_color_dark="*neutral_300",
    button_primary_background_fill="*primary_600",
)
PROGRESS = gr.Progress()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    # Hugging Face's Spaces set this variable, and one for the port, which Gradio reads.
    host: str = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    """address to listen at; by default only this machine can open the page"""
    port: int | None = None
    """port to listen at; by default the first free one from 7860 on"""


# ---------------------------------------------------------------- models, each loaded when needed


@functools.cache
def model(name):
    return training.load_model(None, name)


@functools.cache
def page_cleaner():
    return scans.cleaner(model("clean_documents"))


@functools.cache
def denoiser():
    network = denoise_fashion.build_unet(None, None)  # the same weights fit a picture of any size
    network.set_weights(model("denoise_fashion_unet").get_weights())
    return network


@functools.cache
def outlier_median():
    """Return the baseline of denoise_fashion.py, its threshold chosen on noisy clothes."""
    clean = clothes.clothes(200, seed=1)[0][..., np.newaxis] / np.float32(255)
    amount = denoise_fashion.Train.noise
    return fit_outlier_median(noise.salt_and_pepper(clean, amount, seed=1), clean)


@functools.cache
def watermark():
    return photo.Watermark(model("watermark_photo"))


@functools.cache
def autoencoders():
    """Return {kind: (encoder, decoder)} of latent_spaces.py."""
    return {
        kind: latent_spaces.encoder_and_decoder(model(f"latent_spaces_{kind}"))
        for kind in latent_spaces.SAVED
    }


# ---------------------------------------------------------------- pictures


def preview(picture):
    """Return a Pillow image of a picture: small ones in larger pixels, large ones scaled down.

    `picture` is one of Pillow, or floats in [0, 1], shape (height, width) or (height, width, 1
    or 3).
    """
    if not isinstance(picture, Image.Image):
        levels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
        picture = Image.fromarray(levels[..., 0] if levels.shape[2:] == (1,) else levels)
    picture = picture.convert("L") if picture.mode == "1" else picture
    longer = max(picture.size)
    if longer > MAX_SHOWN:
        return ImageOps.contain(picture, (MAX_SHOWN, MAX_SHOWN), Image.Resampling.LANCZOS)
    return ImageOps.scale(picture, -(-MIN_SHOWN // longer), Image.Resampling.NEAREST)


def write_samples(folder):
    """Write sample pictures into a new folder and return {kind: list of paths}, shipped ones too.

    `photos` are in color, `gray` ones are not; `clothes` and `digits` have 28x28 pixels.
    """
    folder.mkdir(parents=True)
    shipped = Path(skimage.__file__).parent / "data"
    samples = {
        "pages": [ROOT / "samples/scan.jpg"],
        "photos": [shipped / name for name in PHOTOS],
        "gray": [shipped / name for name in GRAY_PHOTOS],
    }
    drawn = {"pages": [dirty[..., 0] for dirty, *_ in pages.make_pages(3, seed=1, scale=1)]}
    for kind, draw in (("clothes", clothes.clothes), ("digits", digits.digits)):
        pictures, labels = draw(60, seed=1)
        drawn[kind] = pictures[np.unique(labels, return_index=True)[1]]
    for kind, pictures in drawn.items():
        for number, pixels in enumerate(pictures):
            path = folder / f"{kind}_{number}.png"
            Image.fromarray(pixels).save(path)
            samples.setdefault(kind, []).append(path)
    return samples


def checked(path):
    """Return a picture's path. Raises UserError if it has too many pixels or cannot be read."""
    with images.open_image(Path(path)) as image:
        images.check_pixels(path, *image.size, MAX_MEGAPIXELS)
    return Path(path)


# ---------------------------------------------------------------- work on what a visitor chooses


class StoppedError(Exception):
    """Work is no longer wanted."""


def emptied(outputs):
    """Return updates that make components as they were when the page was opened.

    Gradio takes the value out of each that it is given, so none can be used twice.
    """
    return [gr.update(value=None, label=each.label, interactive=False) for each in outputs]


def attempt(work, outputs, *inputs):
    """Return what work(*inputs) returns; if it fails, emptied outputs with the error as the last.

    A file has its name in the error instead of its path.
    """
    try:
        return work(*inputs)
    except cli.UserError as error:
        folder = rf"{re.escape(tempfile.gettempdir())}/\S*/"
        return [*emptied(outputs[:-1]), re.sub(folder, "", str(error))]


def show_on(file, events, work, inputs, outputs):
    """Show what light work makes of the inputs, whose first is `file`, on its change and others.

    The last of the outputs is a text.
    """

    def run(*inputs):
        return attempt(work, outputs, *inputs) if inputs[0] else emptied(outputs)

    file.change(lambda: emptied(outputs), None, outputs, queue=False, show_progress="hidden")
    gr.on(
        [file.change, *events],
        run,
        inputs,
        outputs,
        trigger_mode="always_last",  # of several events while one is answered
        show_progress_on=outputs[-1],
    )


def run_on(events, work, inputs, outputs, stop):
    """Run heavy work on each event, which stops what still runs and empties the outputs.

    `work` is a function of `report`, a temporary folder and the inputs; `report` takes the share of
    the work that is done, in [0, 1]. The inputs for files come first, and without any file there is
    nothing to do. The last of the outputs, which show what `work` returns, is a text. `stop` is a
    button.
    """
    latest = gr.State()  # an Event, set when the work on the latest inputs is over
    files = sum(isinstance(each, gr.File | gr.DownloadButton) for each in inputs)

    def begin(over, *inputs):
        if over:
            over.set()
        given = any(inputs[:files])
        return [threading.Event(), *emptied(outputs), gr.update(interactive=given)]

    def run(over, progress=PROGRESS, *inputs):
        def report(share):
            if over.is_set() or not any(inputs[:files]):
                raise StoppedError
            progress(share)

        with tempfile.TemporaryDirectory() as folder:
            try:
                report(0)
                updates = attempt(work, outputs, report, Path(folder), *inputs)
                report(1)
                over.set()
                yield [*updates, gr.update(interactive=False)]
            except StoppedError:
                yield gr.skip()  # without any answer Gradio's page would freeze at the next work

    def end(over):
        over.set()
        return [*emptied(outputs[:-1]), "Stopped", gr.update(interactive=False)]

    at_once = {"queue": False, "trigger_mode": "multiple", "show_progress": "hidden"}
    begun = gr.on(events, begin, [latest, *inputs], [latest, *outputs, stop], **at_once)
    begun.then(
        run,
        [latest, *inputs],
        [*outputs, stop],
        trigger_mode="always_last",
        show_progress_on=outputs[-1],
        concurrency_id="heavy",  # one at a time, to save memory
    )
    stop.click(end, latest, [*outputs, stop], **at_once)


# ---------------------------------------------------------------- what the tabs do


def clean(report, folder, path, ink):
    """Clean the first page of a file."""
    tiles.on_tile.set(report)
    before, after, target, notes = scans.clean_first_page(
        page_cleaner(), Path(path), folder, INKS[ink], MAX_MEGAPIXELS
    )
    height, width = after.pixels.shape[:2]
    dpi = f"{after.dpi[0]:.0f} dpi" if after.dpi else "no dpi known"
    status = "; ".join([f"{target.name}: {width}x{height} pixels, {dpi}", *notes])
    previews = preview(before.image()), preview(after.image())
    return previews, gr.DownloadButton(value=str(target), interactive=True), status


def remove_noise(path, kind, amount):
    """Return the middle of a picture: as it is, noisy, filtered and denoised, with PSNR."""
    picture = images.read_visible(checked(path))
    top, left = (max(0, (side - CROP) // 2) for side in picture.shape[:2])
    picture = picture[np.newaxis, top : top + CROP, left : left + CROP]
    noisy = NOISES[kind](picture, amount, training.seed_for("app"))
    results = {
        "noisy": noisy,
        "outlier median": outlier_median()(noisy),
        "network": tiles.denoise(denoiser(), noisy[0], multiple=8)[np.newaxis],
    }
    updates = [preview(picture[0])]
    for name, result in results.items():
        label = f"{name}: {metrics.psnr(picture, result):.1f} dB"
        updates.append(gr.Image(preview(result[0]), label=label))
    return [*updates, f"The middle {picture.shape[2]}x{picture.shape[1]} pixels"]


def prepare(path, name):
    """Return a picture as a model in models/ needs it, (28, 28, 1), and a note."""
    dataset = training.trained_on(None, name)
    image, inverted = small_images.prepare(images.read_visible(checked(path)), dataset)
    done = "Inverted" if inverted else "Not inverted"
    return image, f"{done}: training images are light on dark."


def encode(path):
    """Return a picture with variations, and its code."""
    image, note = prepare(path, "vae_fashion")
    vae = model("vae_fashion")
    z = np.asarray(vae.encoder(image[np.newaxis])[0], "float64")[0]
    variations = latents.vary_widely(vae.decoder, z, 8, np.random.default_rng())
    sheet = preview(plotting.mosaic(np.stack([image, *variations]), 3))
    return sheet, f"z = ({z[0]:.2f}, {z[1]:.2f}). {note}"


def embed(report, folder, path, text, key):
    """Embed a text in a photo."""
    path = checked(path)
    target = folder / f"{path.stem}_marked.png"
    psnr = embed_in_file(watermark(), path, text, code.derive_key(key), target)
    before, after = (images.read_color(file) for file in (path, target))
    return (
        (preview(before), preview(after)),
        preview(0.5 + 16 * (after - before)),
        gr.DownloadButton(value=str(target), interactive=True),
        f"{psnr:.1f} dB; read back from the file, and after JPEG 75",
    )


def damage_and_extract(report, folder, upload, marked, key, quality, sigma, blur, kept, scale):
    """Return a photo after what is done to it, and the message that is left in it."""
    picture = images.read_color(checked(upload or marked))
    height, width = picture.shape[:2]
    images.check_pixels("The resized photo", scale * height, scale * width, MAX_MEGAPIXELS)
    picture = damage.damage(
        picture,
        training.seed_for("app"),
        scale=scale,
        crop_share=kept / 100,
        blur_sigma=blur,
        noise_sigma=sigma,
        quality=int(quality) if quality < 100 else 0,
    )
    gray = photo.luminance(picture)
    text = watermark().extract(gray, code.derive_key(key), progress=report)
    return preview(picture), "No message found with this key" if text is None else text


def reconstruct(path):
    """Return a picture in 28x28 pixels, what each autoencoder makes of it, and a note."""
    image, note = prepare(path, "latent_spaces_plain")
    updates = [preview(image)]
    for kind, (encoder, decoder) in autoencoders().items():
        codes = np.asarray(encoder(image[np.newaxis]))
        result = np.asarray(decoder(codes))[0].clip(0, 1)
        label = f"{kind}, {codes.shape[1]}: MSE {metrics.mse(image, result):.4f}"
        updates.append(gr.Image(preview(result), label=label))
    return [*updates, note]


# ---------------------------------------------------------------- what the tabs look like


def file_picker(label, paths=(), suffixes=SUFFIXES):
    """Return a place to drop a file at, above samples; clicking one of these drops it there."""
    file = gr.File(label=label, file_types=list(suffixes), height=140)
    if paths:
        samples = [[str(path)] for path in paths]
        gallery = gr.Dataset(components=["image"], samples=samples, label="Samples: click one")
        gallery.click(lambda sample: sample[0], gallery, file, show_progress="hidden")
    return file


def picture_box(label, **options):
    """Return a place that shows a picture, losslessly."""
    return gr.Image(
        label=label,
        format="png",
        interactive=False,
        buttons=["fullscreen"],
        elem_classes="picture",
        **options,
    )


def comparison_box(label, **options):
    """Return a place that shows one picture on top of another, with a line to drag between."""
    return gr.ImageSlider(
        label=label, format="png", interactive=False, buttons=["fullscreen"], **options
    )


def status_box(label, hint="Choose a file, or click a sample"):
    return gr.Textbox(label=label, placeholder=hint, interactive=False, lines=2)


def clean_tab(samples):
    gr.Markdown(
        "The network tells dirt from ink: look at letters under a stain, and at what a fold hid. "
        "Of a PDF or TIFF the first page is cleaned. The model is that of `clean_documents.py`."
    )
    with gr.Row():
        with gr.Column(scale=1):
            page = file_picker("A page: image or PDF", samples["pages"], [*SUFFIXES, ".pdf"])
            ink = gr.Radio(list(INKS), value="as it is", label="Ink")
            status = status_box("The cleaned file")
            with gr.Row():
                stop = gr.Button("Stop", interactive=False, min_width=80)
                download = gr.DownloadButton("Download", interactive=False, min_width=80)
        comparison = comparison_box("Before and after", height=620, scale=2)
    events = [page.change, ink.input]
    run_on(events, clean, [page, ink], [comparison, download, status], stop)


def denoise_tab(samples):
    gr.Markdown(
        "Which one keeps edges and textures, and which one leaves specks? The network has only "
        f"seen clothes of 28x28 pixels with {denoise_fashion.Train.noise:.0%} of their pixels "
        "replaced: other pictures, other amounts and Gaussian noise are new to it. The other "
        "filter replaces outliers alone, by the median around them. The model is that of "
        "`denoise_fashion.py`."
    )
    with gr.Row():
        with gr.Column():
            file = file_picker("A picture", samples["gray"] + samples["clothes"][:3])
        with gr.Column():
            kind = gr.Radio(list(NOISES), value="salt and pepper", label="Noise")
            label = "Amount: share of pixels, or standard deviation"
            amount = gr.Slider(0, 0.5, 0.1, step=0.01, label=label)
            status = status_box("What is shown")
    with gr.Row():
        names = ["picture", "noisy", "outlier median", "network"]
        outputs = [picture_box(name, min_width=220) for name in names]
    inputs = [file, kind, amount]
    show_on(file, [kind.change, amount.change], remove_noise, inputs, [*outputs, status])


def plane_tab(samples):
    gr.Markdown(
        "Each place of the plane is a code of two numbers, and the decoder makes an image of each. "
        "Drag the point: neighbors look alike, and between two kinds of clothes lie mixtures. "
        "The model is that of `vae_fashion.py`."
    )
    size = "display: block; border: 0; width: 100%; height: max(780px, 1410px - 100vw)"
    explorer = f'<iframe src="docs/explorer.html" title="The latent plane" style="{size}"></iframe>'
    gr.HTML(explorer, padding=False)
    with gr.Row():
        with gr.Column():
            file = file_picker("A piece of clothing of yours", samples["clothes"])
            status = status_box("The code of yours")
        sheet = picture_box("Yours, and variations of it")
    show_on(file, [], encode, [file], [sheet, status])


def message_tab(samples):
    gr.Markdown(
        "Can you see the message? Look at smooth areas, and at what changed, amplified 16 times. "
        "Then damage the photo and read it. The model is that of `watermark_photo.py`."
    )
    with gr.Row():
        with gr.Column():
            file = file_picker("A photo to hide a message in", samples["photos"])
            text = gr.Textbox("Hello from the pixels", label="Message", max_length=640)
            key = gr.Textbox(label="Key: only who knows it reads the message", max_length=200)
            with gr.Row():
                hide = gr.Button("Hide", variant="primary", min_width=80)
                stop_hiding = gr.Button("Stop", interactive=False, min_width=80)
                download = gr.DownloadButton("Download", interactive=False, min_width=80)
            status = status_box("The marked photo")
        with gr.Column(scale=2), gr.Row():
            comparison = comparison_box("Photo and marked photo", height=420, min_width=280)
            change = picture_box("What changed, 16 times", height=420, min_width=280)
    with gr.Row():
        with gr.Column():
            sliders = [
                gr.Slider(10, 100, 100, step=1, label="JPEG quality (100: none)"),
                gr.Slider(0, 0.2, 0, step=0.01, label="Noise, standard deviation"),
                gr.Slider(0, 3, 0, step=0.1, label="Blur, in pixels"),
                gr.Slider(5, 100, 100, step=1, label="Crop, percent kept"),
                gr.Slider(0.3, 2, 1, step=0.05, label="Resize, factor"),
            ]
            upload = file_picker("A marked photo of yours, instead of the one above")
        with gr.Column():
            with gr.Row():
                read = gr.Button("Damage and read", variant="primary", min_width=80)
                stop_reading = gr.Button("Stop", interactive=False, min_width=80)
            message = status_box("Message that was read", 'Press "Damage and read"')
            damaged = picture_box("What was read", height=420)
    outputs = [comparison, change, download, status]
    run_on([file.change, hide.click], embed, [file, text, key], outputs, stop_hiding)
    inputs = [upload, download, key, *sliders]
    events = [upload.change, read.click]
    run_on(events, damage_and_extract, inputs, [damaged, message], stop_reading)


def autoencoders_tab(samples):
    gr.Markdown(
        "Five ways through a bottleneck: which one blurs, which one keeps the slant of a stroke, "
        "and which makes a digit of whatever it is given? The models are those of "
        "`latent_spaces.py`, trained on handwritten digits. Above each result stands how many "
        "numbers its code has."
    )
    with gr.Row():
        with gr.Column(scale=3):
            file = file_picker("A digit of yours", samples["digits"])
        with gr.Column(scale=1):
            note = status_box("Note")
    with gr.Row():
        names = ["picture", *latent_spaces.SAVED]
        outputs = [picture_box(name, min_width=300) for name in names]
    show_on(file, [], reconstruct, [file], [*outputs, note])


TABS = {
    "Clean a scan": clean_tab,
    "Remove noise": denoise_tab,
    "Latent plane": plane_tab,
    "Hide a message": message_tab,
    "Five autoencoders": autoencoders_tab,
}


async def project_file(request):
    name = request.url.path[1:]
    return FileResponse(ROOT / name, media_type=SERVED[name])


async def add_policy(request, call_next):
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def build_page(folder):
    """Return the page; sample pictures are written into a new folder."""
    samples = write_samples(folder)
    # Served from where they are; copies would be deleted with the visitors' files.
    gr.set_static_paths([path for paths in samples.values() for path in paths])
    with gr.Blocks(title="Autoencoders", delete_cache=(60, 3_600)) as page:
        gr.Markdown(
            "# Autoencoders\nFive things that trained ones do. Click a sample, or take your own. "
            "[About the project](README.md) · [License](LICENSE)"
        )
        with gr.Tabs(overflow_behavior="wrap"):
            for name, fill in TABS.items():
                with gr.Tab(name):
                    fill(samples)
    return page.queue(max_size=40)


def main(argv=None):
    settings = tyro.cli(Serve, args=argv, description=__doc__)
    if settings.host not in ("127.0.0.1", "localhost", "::1"):
        warning = "everyone who can reach this machine can use the page, without a password"
        print(f"warning: --host {settings.host}: {warning}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="autoencoders_") as folder:
        tempfile.tempdir = folder  # for everything that is uploaded or made
        # Gradio reads the variable each time; only DEFAULT_TEMP_DIR was set when it was imported.
        os.environ["GRADIO_TEMP_DIR"] = gr.routes.DEFAULT_TEMP_DIR = str(Path(folder, "gradio"))
        page = build_page(Path(folder, "gradio", "samples"))  # Gradio needs its folder to be there
        try:
            page.launch(
                server_name=settings.host,
                server_port=settings.port,
                share=False,
                run_history=False,  # it keeps visitors' files, in the browser or elsewhere
                ssr_mode=False,
                footer_links=[],
                app_kwargs={
                    "middleware": [Middleware(BaseHTTPMiddleware, add_policy)],
                    "routes": [Route(f"/{name}", project_file) for name in SERVED],
                },
                max_file_size="50mb",
                theme=THEME,
                css=CSS,
                js=NAME_SAMPLES,
                quiet=True,
                prevent_thread_lock=True,
            )
            print(f"Open {page.local_url} in a browser. Ctrl-C ends it.", flush=True)
            threading.Event().wait()
        except (OSError, OverflowError) as error:
            place = f"{settings.host}, port {settings.port or 'any'}"
            raise cli.UserError(f"{place}: can't listen ({error}); choose another --port") from None
        except KeyboardInterrupt:
            return 130
        finally:
            page.close(verbose=False)


if __name__ == "__main__":
    cli.run(main)
