"""A page in the browser to try the trained models on: five tabs, each a layer over tools/.

Examples:
  pip install -r requirements-app.txt
  python app.py                      then open http://127.0.0.1:7860
  python app.py --port 8000
  python app.py --host 0.0.0.0       for everyone who can reach this machine

Nothing leaves the machine: no analytics, no fonts or scripts of other hosts. Uploads lie in a
temporary folder for an hour at most, which is removed when the page ends.
"""

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, which calls home
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
try:
    import gradio as gr
    from starlette.middleware import Middleware
except ImportError as error:
    print(f"error: {error}; pip install -r requirements-app.txt", file=sys.stderr)
    sys.exit(2)

import numpy as np
import skimage
import tyro
from PIL import Image, ImageDraw, ImageOps

import denoise_fashion
import latent_spaces
import vae_fashion  # noqa: F401  registers the layers of its model
from common import cli, images, metrics, noise, plotting, training
from synthetic import clothes, digits, pages
from tools import latents, scans, small_images, tiles
from tools.messages import code, damage, photo
from tools.messages.files import embed_in_file

MAX_MEGABYTES, MAX_MEGAPIXELS = 50, 40  # of an upload
UPLOAD_SECONDS = 3_600  # how long an upload is kept
CLEANUP_SECONDS = 60  # how often old ones are deleted
MIN_SHOWN, MAX_SHOWN = 280, 1_200  # pixels of the longer side of a picture on the page
PLANE_LIMIT, PLANE_COUNT = 2.3, 20  # of the latent plane: its last z, images along a side
MAX_Z = 4  # of the sliders
# Only one of these runs at a time, to save memory; everything else overtakes them in the queue.
HEAVY = {"concurrency_id": "heavy", "concurrency_limit": 1}
LIGHT = {"concurrency_limit": 4, "show_progress": "hidden", "trigger_mode": "always_last"}
NOISES = {"salt and pepper": noise.salt_and_pepper, "Gaussian": noise.gaussian}
INKS = {
    "as it is": scans.Options(),
    "gray": scans.Options(gray=True),
    "black and white": scans.Options(bilevel=True),
}
# With it the browser itself refuses to ask another host for anything.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
# A drag: while the pointer moves with its button down, its last place is clicked every 60 ms.
DRAG = """() => {
  const plane = document.querySelector("#plane");
  if (plane.dataset.drag) return;
  plane.dataset.drag = "on";
  let place, timer;
  plane.addEventListener("dragstart", event => event.preventDefault());
  plane.addEventListener("pointermove", event => {
    if (event.buttons !== 1 || event.target.tagName !== "IMG") return;
    place = {clientX: event.clientX, clientY: event.clientY, bubbles: true};
    timer ??= setTimeout(() => {
      timer = undefined;
      plane.querySelector("img").dispatchEvent(new MouseEvent("click", place));
    }, 60);
  });
}"""
# Labels and buttons stand above a picture; in Gradio's own style they hide its corners.
CSS = """
.gradio-container {max-width: 1240px !important; margin: auto}
#plane img {cursor: crosshair; touch-action: none}
.block:has(> label.float) {padding-top: 40px !important}
.image-container > .icon-button-wrapper {top: -36px !important}
"""
PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")  # of scikit-image
GRAY_PHOTOS = ("camera.png", "coins.png", "moon.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    # Hugging Face's Spaces set this variable, and one for the port, which Gradio reads.
    host: str = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    """address to listen at; by default only this machine can open the page"""
    port: int | None = None
    """port to listen at; by default the first free one from 7860 on"""

    def __post_init__(self):
        if self.port is not None and not 1 <= self.port <= 65_535:
            raise ValueError("--port must be between 1 and 65535")


# ---------------------------------------------------------------- models, each loaded when needed

_loading = threading.RLock()


def load_once(load):
    """Return a function that calls `load` the first time it is needed, and never twice."""
    cached = functools.cache(load)

    def locked():
        with _loading:
            return cached()

    return locked


@load_once
def page_cleaner():
    return scans.cleaner(training.load_model(None, "clean_documents"))


@load_once
def denoiser():
    network = denoise_fashion.build_unet(None, None)  # the same weights fit a picture of any size
    network.set_weights(training.load_model(None, "denoise_fashion_unet").get_weights())
    return network


@load_once
def vae():
    return training.load_model(None, "vae_fashion")


@load_once
def latent_plane():
    return latents.plane(vae().decoder, PLANE_LIMIT, PLANE_COUNT)


@load_once
def watermark():
    return photo.Watermark(training.load_model(None, "watermark_photo"))


@load_once
def autoencoders():
    """Return {kind: (encoder, decoder)} of latent_spaces.py."""
    return {
        kind: latent_spaces.split(training.load_model(None, f"latent_spaces_{kind}"))
        for kind in latent_spaces.KINDS
    }


# ---------------------------------------------------------------- pictures


def preview(image):
    """Return a Pillow image of a picture: small ones in larger pixels, large ones scaled down.

    `image` is uint8, or float in [0, 1], of shape (height, width) or (height, width, 1 or 3).
    """
    if image.dtype != np.uint8:
        image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    longer = max(picture.size)
    if longer > MAX_SHOWN:
        return ImageOps.contain(picture, (MAX_SHOWN, MAX_SHOWN), Image.Resampling.LANCZOS)
    return ImageOps.scale(picture, -(-MIN_SHOWN // longer), Image.Resampling.NEAREST)


def crop_center(image, side):
    """Return the middle of an image, at most `side` pixels high and wide."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def write_samples(folder):
    """Write sample pictures into a folder and return {kind: list of paths}.

    Of the dirty `pages` the first is an A6 at 300 dpi. `photos` are in color, `gray` ones are not;
    `clothes` and `digits` have 28x28 pixels, light on black.
    """
    samples = {"pages": [], "clothes": [], "digits": []}
    large = pages.pages(1, seed=1, height=1748, width=1240, scale=3)
    small = pages.pages(3, seed=1, scale=1)
    for number, (dirty, *_) in enumerate([*large, *small]):
        path = folder / f"page_{number + 1}.png"
        Image.fromarray(dirty[..., 0]).save(path, dpi=(300, 300) if number == 0 else (100, 100))
        samples["pages"].append(path)
    for kind, make in (("clothes", clothes.clothes), ("digits", digits.digits)):
        drawn, labels = make(60, seed=1)
        for label in np.unique(labels):
            path = folder / f"{kind}_{label}.png"
            Image.fromarray(drawn[labels == label][0]).save(path)
            samples[kind].append(path)
    shipped = Path(skimage.__file__).parent / "data"
    for kind, names in (("photos", PHOTOS), ("gray", GRAY_PHOTOS)):
        paths = [shipped / name for name in names if (shipped / name).is_file()]
        samples[kind] = [Path(shutil.copy(path, folder)) for path in paths]
    return samples


# ---------------------------------------------------------------- what the tabs do


@contextlib.contextmanager
def errors_on_page():
    """Show a UserError as the page's own message, with a file's name in place of its path."""
    try:
        yield
    except cli.UserError as error:
        folders = rf"{re.escape(tempfile.gettempdir())}/(gradio/\w+|samples|tmp\w+)/"
        raise gr.Error(re.sub(folders, "", str(error)), print_exception=False) from None
    except MemoryError:
        raise gr.Error("Not enough memory; use a smaller picture", print_exception=False) from None


def checked(path):
    """Return a picture's path. Raises UserError if it has too many pixels or cannot be read."""
    if path is None:
        raise cli.UserError("Choose a picture first: one of yours, or a sample")
    with images.open_image(Path(path)) as image:
        images.check_pixels(path, *image.size, MAX_MEGAPIXELS)
    return Path(path)


def clean(path, ink):
    """Clean the first page of a file. A generator, so that its files can be deleted once sent."""
    with errors_on_page(), tempfile.TemporaryDirectory() as folder:
        if path is None:  # the visitor removed it
            yield gr.skip()
            return
        before, after, target, notes = scans.clean_first_page(
            page_cleaner(), Path(path), Path(folder), INKS[ink], MAX_MEGAPIXELS
        )
        height, width = after.pixels.shape[:2]
        dpi = f"{after.dpi[0]:.0f} dpi" if after.dpi else "no dpi known"
        status = "; ".join([f"{target.name}: {width}x{height} pixels, {dpi}", *notes])
        previews = preview(before.pixels), preview(after.pixels)
        yield previews, gr.DownloadButton(value=str(target), interactive=True), status


def remove_noise(path, kind, amount):
    """Return the middle of a picture: as it is, noisy, filtered and denoised, with PSNR."""
    if path is None:
        return gr.skip()
    with errors_on_page():
        picture = images.read_visible(checked(path))
        noisy = NOISES[kind](picture[np.newaxis], amount, training.seed_for("app"))[0]
        results = {
            "noisy": noisy,
            "median filter, 3x3": metrics.median_3x3(noisy[np.newaxis])[0],
            "network": tiles.denoise(denoiser(), noisy, multiple=8),
        }
        updates = [preview(crop_center(picture, 400))]
        for name, result in results.items():
            psnr = metrics.psnr(picture[np.newaxis], result[np.newaxis])
            label = f"{name}: {psnr:.1f} dB"
            updates.append(gr.Image(preview(crop_center(result, 400)), label=label))
        return updates


def show_code(z_1, z_2):
    """Return the plane with a ring at a code, and the image that the code decodes to."""
    plane = preview(latent_plane()).convert("RGB")
    side, z = plane.width, np.clip([z_1, -z_2], -PLANE_LIMIT, PLANE_LIMIT)
    x, y = (side * (z / PLANE_LIMIT + 1) / 2).clip(8, side - 8)
    for radius, color in ((9, "black"), (8, "yellow"), (7, "yellow"), (6, "black")):
        ImageDraw.Draw(plane).circle((x, y), radius, outline=color)
    [image] = latents.decode(vae().decoder, np.array([[z_1, z_2]]))
    return plane, preview(image)


def clicked_code(event: gr.SelectData):
    """Return the code of a place on the plane."""
    side = PLANE_COUNT * small_images.SIDE
    x, y = (round(PLANE_LIMIT * (2 * place / side - 1), 2) for place in event.index)
    return x, -y


def new_clothes():
    """Return decoded samples of the prior."""
    z = np.random.default_rng().standard_normal((32, 2))
    return preview(plotting.mosaic(latents.decode(vae().decoder, z), 8))


def prepare(path, name):
    """Return a picture as a model in models/ needs it, (28, 28, 1), and a note."""
    dataset = training.trained_on(None, name)
    image, inverted = small_images.prepare(images.read_visible(checked(path)), dataset)
    return image, "Inverted: the training images are light on dark." if inverted else ""


def encode(path):
    """Return the code of a picture, the picture with variations, and a note."""
    if path is None:
        return gr.skip()
    with errors_on_page():
        image, note = prepare(path, "vae_fashion")
        z_mean = np.asarray(vae().encoder(image[np.newaxis])[0], "float64")[0]
        z = z_mean.round(2).clip(-MAX_Z, MAX_Z)  # as the sliders have it
        variations = latents.vary_widely(vae().decoder, z, 8, np.random.default_rng())
        sheet = preview(plotting.mosaic(np.stack([image, *variations]), 3))
        status = f"z = ({z[0]:.2f}, {z[1]:.2f}). {note}".strip()
        return float(z[0]), float(z[1]), sheet, status


def embed(path, text, key):
    """Embed a text in a photo. A generator, so that its files can be deleted once sent."""
    with errors_on_page(), tempfile.TemporaryDirectory() as folder:
        path = checked(path)
        target = Path(folder, f"{path.stem}_marked.png")
        psnr = embed_in_file(watermark(), path, text, code.derive_key(key), target)
        before, after = (images.read_color(file) for file in (path, target))
        button = gr.DownloadButton(value=str(target), interactive=True)
        status = f"{psnr:.1f} dB; read back from the file, and after JPEG 75"
        yield (
            (preview(before), preview(after)),
            preview(0.5 + 16 * (after - before)),
            button,
            status,
        )


def damage_and_extract(path, key, quality, sigma, blur, kept, scale, progress=gr.Progress()):  # noqa: B008
    """Return a marked photo after what is done to it, and the message that is left in it."""
    with errors_on_page():
        if path is None:
            raise cli.UserError("Hide a message first")
        picture = images.read_color(path)
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
        return preview(picture), extract(picture, key, progress)


def extract_from_upload(path, key, progress=gr.Progress()):  # noqa: B008
    """Return the message in a photo as it was uploaded."""
    with errors_on_page():
        return extract(images.read_color(checked(path)), key, progress)


def extract(picture, key, progress):
    """Return the message in a picture, or a sentence if there is none."""

    def show(share):
        progress(share, desc="Searching at other scales and angles")

    gray = photo.luminance(picture)
    text = watermark().extract(gray, code.derive_key(key), progress=show)
    return "No message found with this key" if text is None else text


def reconstruct(path):
    """Return a picture in 28x28 pixels, what each autoencoder makes of it, and a note."""
    if path is None:
        return gr.skip()
    with errors_on_page():
        image, note = prepare(path, "latent_spaces_plain")
        updates = [preview(image)]
        for kind, (encoder, decoder) in autoencoders().items():
            codes = np.asarray(encoder(image[np.newaxis]))
            result = np.asarray(decoder(codes))[0].clip(0, 1)
            label = f"{kind}, {codes.shape[1]} numbers: MSE {metrics.mse(image, result):.4f}"
            updates.append(gr.Image(preview(result), label=label))
        return *updates, note


# ---------------------------------------------------------------- what the tabs look like


def file_picker(label, paths, suffixes=images.SUFFIXES):
    """Return a place to drop a file at, above samples; clicking one of these drops it there."""
    file = gr.File(label=label, file_types=list(suffixes), height=110)
    gallery = gr.Dataset(
        components=["image"],
        samples=[[str(path)] for path in paths],
        type="index",
        label="Samples: click one",
    )
    # Otherwise one that was clicked would be deleted with the visitors' files.
    gallery.keep_in_cache = {str(sample["path"]) for (sample,) in gallery.samples}
    gallery.click(lambda index: str(paths[index]), gallery, file, show_progress="hidden")
    return file


def picture_box(label, component=gr.Image, **options):
    """Return a place that shows a picture, losslessly."""
    return component(
        label=label, format="png", interactive=False, buttons=["fullscreen"], **options
    )


def comparison_box(label, height, **options):
    """Return a place that shows one picture on top of another, with a line to drag between."""
    max_height = height - 44  # the label is above it
    return picture_box(label, gr.ImageSlider, height=height, max_height=max_height, **options)


def clean_tab(samples):
    gr.Markdown(
        "The network tells dirt from ink: look at letters under a stain, and at what a fold hid. "
        "Of a PDF or TIFF the first page is cleaned. The model is that of `clean_documents.py`."
    )
    with gr.Row():
        with gr.Column(scale=1):
            suffixes = (*images.SUFFIXES, ".pdf")
            page = file_picker("A page: image or PDF", samples["pages"], suffixes)
            ink = gr.Radio(list(INKS), value="as it is", label="Ink")
            status = gr.Textbox(label="The cleaned file", lines=2)
            download = gr.DownloadButton("Download at full size", interactive=False)
        comparison = comparison_box("Before and after", 640, scale=2)
    outputs = [comparison, download, status]
    events = [page.change, ink.input]
    gr.on(events, clean, [page, ink], outputs, trigger_mode="always_last", **HEAVY)


def denoise_tab(samples):
    gr.Markdown(
        "Which one keeps edges and textures, and which one leaves specks? The network has only "
        f"seen clothes of 28x28 pixels with {denoise_fashion.Train.noise:.0%} of their pixels "
        "replaced: other pictures, other amounts and Gaussian noise are new to it. The model is "
        "that of `denoise_fashion.py`."
    )
    with gr.Row():
        with gr.Column():
            file = file_picker("A picture", samples["gray"] + samples["clothes"][:3])
        with gr.Column():
            kind = gr.Radio(list(NOISES), value="salt and pepper", label="Noise")
            label = "Amount: share of pixels, or standard deviation"
            amount = gr.Slider(0, 0.5, 0.1, step=0.01, label=label)
    with gr.Row():
        outputs = [picture_box(label) for label in ("picture", "noisy", "median filter", "network")]
    inputs = [file, kind, amount]
    events = [component.change for component in inputs]
    gr.on(events, remove_noise, inputs, outputs, trigger_mode="always_last", **HEAVY)


def plane_tab(samples, tab):
    gr.Markdown(
        "Each place of the plane is a code of two numbers, and the decoder makes an image of each. "
        "Click, or drag: neighbors look alike, and between two kinds of clothes lie mixtures. "
        "The model is that of `vae_fashion.py`."
    )
    with gr.Row():
        with gr.Column(scale=3):
            plane = picture_box("The latent plane: click, or drag", elem_id="plane")
            file = file_picker("A piece of clothing of yours", samples["clothes"])
        with gr.Column(scale=2):
            decoded = picture_box("Decoded", height=320)
            z_1 = gr.Slider(-MAX_Z, MAX_Z, 0, step=0.01, label="z_1, to the right")
            z_2 = gr.Slider(-MAX_Z, MAX_Z, 0, step=0.01, label="z_2, upwards")
            button = gr.Button("New clothes, from samples of the prior")
            sheet = picture_box("New clothes, or variations of yours")
            status = gr.Textbox(label="The code of yours", lines=2)
    tab.select(show_code, [z_1, z_2], [plane, decoded], **LIGHT).then(None, js=DRAG)
    plane.select(clicked_code, None, [z_1, z_2], **LIGHT)
    # What is shown follows the sliders, whoever moves them and in whatever order answers arrive.
    gr.on([z_1.change, z_2.change], show_code, [z_1, z_2], [plane, decoded], **LIGHT)
    button.click(new_clothes, None, sheet, concurrency_limit=4)
    file.change(encode, file, [z_1, z_2, sheet, status], concurrency_limit=4)


def message_tab(samples):
    gr.Markdown(
        "Can you see the message? Look at smooth areas, and at what changed, amplified 16 times. "
        "Then damage the photo and read it. The model is that of `watermark_photo.py`."
    )
    with gr.Row():
        with gr.Column():
            file = file_picker("A photo", samples["photos"])
            text = gr.Textbox("Hello from the pixels", label="Message", max_length=640)
            key = gr.Textbox(label="Key: only who knows it reads the message", max_length=200)
            button = gr.Button("Hide", variant="primary")
            status = gr.Textbox(label="The marked photo", lines=2)
            download = gr.DownloadButton("Download the marked photo", interactive=False)
            reader = gr.Button("Read what this photo holds")
        with gr.Column(scale=2):
            with gr.Row():
                comparison = comparison_box("Photo and marked photo", 420)
                change = picture_box("What changed, 16 times", height=420)
            with gr.Row():
                with gr.Column():
                    sliders = [
                        gr.Slider(10, 100, 70, step=1, label="JPEG quality (100: none)"),
                        gr.Slider(0, 0.2, 0.02, step=0.01, label="Noise, standard deviation"),
                        gr.Slider(0, 3, 0, step=0.1, label="Blur, in pixels"),
                        gr.Slider(5, 100, 60, step=1, label="Crop, percent kept"),
                        gr.Slider(0.3, 2, 1, step=0.05, label="Resize, factor"),
                    ]
                    attack = gr.Button("Damage it and read", variant="primary")
                with gr.Column():
                    damaged = picture_box("The damaged photo", height=420)
                    message = gr.Textbox(label="Message that was read", lines=2)
    outputs = [comparison, change, download, status]
    gr.on([file.change, button.click], embed, [file, text, key], outputs, **HEAVY)
    attack.click(damage_and_extract, [download, key, *sliders], [damaged, message], **HEAVY)
    reader.click(extract_from_upload, [file, key], message, **HEAVY)


def autoencoders_tab(samples):
    gr.Markdown(
        "Five ways through a bottleneck: which one blurs, which one keeps the slant of a stroke, "
        "and which makes a digit of whatever it is given? The models are those of "
        "`latent_spaces.py`, trained on handwritten digits."
    )
    with gr.Row():
        with gr.Column(scale=3):
            file = file_picker("A digit of yours", samples["digits"])
        note = gr.Textbox(label="Note", lines=3)
    with gr.Row():
        names = ["picture", *latent_spaces.KINDS]
        outputs = [picture_box(name, min_width=300) for name in names]
    file.change(reconstruct, file, [*outputs, note], concurrency_limit=4)


def with_policy(app):
    """Return an ASGI app whose answers carry `POLICY`."""

    async def answer(scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, send_with_policy)

    return answer


def build_page(folder):
    """Return the page; sample pictures are written into a new folder."""
    folder.mkdir()
    samples = write_samples(folder)
    with gr.Blocks(title="Autoencoders", delete_cache=(CLEANUP_SECONDS, UPLOAD_SECONDS)) as page:
        gr.Markdown(
            "# Autoencoders\nFive things that trained ones do. Click a sample, or take your own."
        )
        with gr.Tab("Clean a scan"):
            clean_tab(samples)
        with gr.Tab("Remove noise"):
            denoise_tab(samples)
        with gr.Tab("Walk the latent plane") as tab:
            plane_tab(samples, tab)
        with gr.Tab("Hide a message"):
            message_tab(samples)
        with gr.Tab("Five autoencoders"):
            autoencoders_tab(samples)
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
        page = build_page(Path(folder, "samples"))
        try:
            page.launch(
                server_name=settings.host,
                server_port=settings.port,
                share=False,
                run_history=False,  # it keeps visitors' files, in the browser or elsewhere
                ssr_mode=False,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(with_policy)]},
                max_file_size=MAX_MEGABYTES * 2**20,
                theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=CSS,
                quiet=True,
                prevent_thread_lock=True,
            )
            print(f"Open {page.local_url} in a browser. Ctrl-C ends it.", flush=True)
            threading.Event().wait()
        except OSError as error:
            place = f"{settings.host}, port {settings.port or 'any'}"
            raise cli.UserError(f"{place}: can't listen ({error}); choose another --port") from None
        except KeyboardInterrupt:
            return 130
        finally:
            page.close(verbose=False)


if __name__ == "__main__":
    cli.run(main)
