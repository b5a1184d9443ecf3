"""A page in the browser to try the trained models on: five tabs, each a layer over applications/.

Run it:
  pip install -r requirements-app.txt
  python app.py                      then open http://127.0.0.1:7860
  python app.py --port 8000
  python app.py --host 0.0.0.0       for all who can reach this machine

Nothing leaves the machine: no analytics, no fonts or scripts of other hosts. What is uploaded lies
in a temporary folder, for an hour, and is gone when the page ends. From the scripts it takes their
settings and builders, which say how to find and load each model.
"""

import os
import sys

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it calls home otherwise
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
try:
    import gradio as gr
    from starlette.middleware import Middleware
except ImportError as error:
    print(f"app.py: error: {error}: pip install -r requirements-app.txt", file=sys.stderr)
    sys.exit(2)

# common comes before keras: it keeps TensorFlow's start-up messages off the console.
from common import UserError, batches, command_line, image_files, metrics, noise, own_pictures
from common import plotting, trained_models
from applications import denoising, inputs, latent_walks, messages, message_bits, page_cleaning
from applications import samples, small_images
from applications.damage import damage
from applications.previews import middle, preview
import clean_documents
import denoise_fashion
import latent_spaces
import vae_fashion
import watermark_photo

import argparse
import contextlib
import functools
import re
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import ImageDraw

MEGABYTES, MEGAPIXELS = 50, 40  # of an upload
KEPT, OFTEN = 3_600, 60  # seconds: how long uploads are kept, how often old ones are deleted
REACH, COUNT = 2.3, 20  # of the plane: standard deviations of the prior, images along a side
FARTHEST = 4  # standard deviations, of a code
# Only one of these runs at a time, to save memory; everything else overtakes them in the queue.
HEAVY = {"concurrency_id": "heavy", "concurrency_limit": 1}
LIGHT = {"concurrency_limit": 4, "show_progress": "hidden", "trigger_mode": "always_last"}
KINDS = {"salt and pepper": noise.salt_and_pepper, "Gaussian": noise.gaussian}
INKS = {
    "as it is": page_cleaning.Options(),
    "grey": page_cleaning.Options(grey=True),
    "black and white": page_cleaning.Options(bilevel=True),
}
# With it the browser itself refuses to ask another host for anything.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
# A drag: while the pointer moves with its button down, each place is clicked.
DRAG = """() => {
  const plane = document.querySelector("#plane");
  if (plane.dataset.drag) return;
  plane.dataset.drag = "on";
  let last = 0;
  plane.addEventListener("dragstart", event => event.preventDefault());
  plane.addEventListener("pointermove", event => {
    if (event.buttons !== 1 || event.target.tagName !== "IMG" || Date.now() - last < 60) return;
    last = Date.now();
    const at = {clientX: event.clientX, clientY: event.clientY, bubbles: true};
    event.target.dispatchEvent(new MouseEvent("click", at));
  });
}"""
# Labels and buttons stand above a picture; in Gradio's own style they hide its corners.
CSS = """
.gradio-container {max-width: 1240px !important; margin: auto}
#plane img {cursor: crosshair; touch-action: none}
.block:has(> label.float) {padding-top: 40px !important}
.image-container > .icon-button-wrapper {top: -36px !important}
"""


# ---------------------------------------------------------------- models, each loaded when needed

_loading = threading.RLock()


def once(load):
    """Return a function that calls `load` the first time it is needed, and never twice."""
    cached = functools.cache(load)

    def locked():
        with _loading:
            return cached()

    return locked


@once
def page_cleaner():
    settings = clean_documents.Settings(architecture="unet")
    return page_cleaning.cleaner(inputs.model_to_apply(settings)[0])


@once
def denoiser():
    trained, architecture = inputs.model_to_apply(denoise_fashion.Settings(architecture="unet"))
    model = denoise_fashion.BUILDERS[architecture](None, None)  # fits a picture of any size
    model.set_weights(trained.get_weights())
    return model


@once
def vae():
    """Return the model, what is known of its training images, and the plane as an image."""
    settings = vae_fashion.Settings(architecture="conv")
    model = inputs.model_to_apply(settings)[0]
    return model, inputs.known_of(settings), latent_walks.plane(model.decoder, REACH, COUNT)


@once
def watermark():
    settings = watermark_photo.Settings(architecture="residual")
    model = inputs.model_to_apply(settings)[0]
    return model, messages.known_pilots(model)


@once
def five():
    """Return {kind: (encoder, decoder)}, and [what is known of each one's training images]."""
    each = {kind: latent_spaces.Settings(architecture=kind) for kind in latent_spaces.KINDS}
    parts = {kind: latent_spaces.split(inputs.model_to_apply(one)[0]) for kind, one in each.items()}
    return parts, [inputs.known_of(one, latent_spaces.KINDS[kind]) for kind, one in each.items()]


# ---------------------------------------------------------------- what the tabs do


@contextlib.contextmanager
def refusals():
    """Turn a UserError into the page's own message, with a file's name in place of its path."""
    try:
        yield
    except UserError as error:
        text = re.sub(
            rf"{re.escape(tempfile.gettempdir())}/(gradio/\w+|samples|tmp\w+)/", "", str(error)
        )
        raise gr.Error(text.replace("--message", "The message"), print_exception=False) from None
    except MemoryError:
        raise gr.Error("Not enough memory; use a smaller picture", print_exception=False) from None


def small_enough(path):
    """Return a picture's path, or raise UserError where it has too many pixels or can't be read."""
    if path is None:
        raise UserError("Choose a picture first: one of yours, or a sample")
    with image_files.open_image(Path(path)) as image:
        image_files.see_that_it_fits(path, *image.size, MEGAPIXELS)
    return Path(path)


def clean(path, ink):
    """Clean the first page of a file. A generator, so that its files go once they are sent."""
    with refusals(), tempfile.TemporaryDirectory() as folder:
        if path is None:  # the visitor removed it
            yield gr.skip()
            return
        before, after, target, notes = page_cleaning.clean_first_page(
            page_cleaner(), Path(path), Path(folder), INKS[ink], MEGAPIXELS
        )
        height, width = after.pixels.shape[:2]
        dpi = f"{after.dpi[0]:.0f} dpi" if after.dpi else "no dpi known"
        said = [f"{target.name}: {width}x{height} pixels, {dpi}", *notes]
        shown = preview(before.pixels), preview(after.pixels)
        yield shown, gr.DownloadButton(value=str(target), interactive=True), "; ".join(said)


def remove_noise(path, kind, amount):
    """Return a picture, or its middle: as it is, noisy, filtered and denoised, with PSNR."""
    if path is None:
        return gr.skip()
    with refusals():
        image = own_pictures.read_on_any_ground(small_enough(path))
        noisy = KINDS[kind](image[np.newaxis], amount, batches.seed_for("app"))[0]
        results = {
            "noisy": noisy,
            "median filter, 3x3": metrics.median_3x3(noisy[np.newaxis])[0],
            "network": denoising.denoise(denoiser(), noisy, multiple=8, plus=4),
        }
        updates = [preview(middle(image, 400))]
        for name, result in results.items():
            psnr = metrics.psnr(image[np.newaxis], result[np.newaxis])
            label = f"{name}: {psnr:.1f} dB"
            updates.append(gr.Image(preview(middle(result, 400)), label=label))
        return updates


def at(z_1, z_2):
    """Return the plane with a ring at a code, and the image that the code decodes to."""
    model, _, plane = vae()
    shown = preview(plane).convert("RGB")
    side, z = shown.width, np.clip([z_1, -z_2], -REACH, REACH)
    x, y = (side * (z / REACH + 1) / 2).clip(8, side - 8)
    for radius, colour in ((9, "black"), (8, "yellow"), (7, "yellow"), (6, "black")):
        ImageDraw.Draw(shown).circle((x, y), radius, outline=colour)
    return shown, preview(trained_models.predict(model.decoder, [[z_1, z_2]])[0])


def at_click(event: gr.SelectData):
    """Return the code of a place on the plane."""
    side = COUNT * small_images.SIDE
    x, y = (round(REACH * (2 * place / side - 1), 2) for place in event.index)
    return x, -y


def new_clothes():
    z = np.random.default_rng().standard_normal((32, 2))
    return preview(plotting.mosaic(trained_models.predict(vae()[0].decoder, z), 8))


def encode(path):
    """Return where a picture lies on the plane, variations, and a note."""
    if path is None:
        return gr.skip()
    with refusals():
        model, known, _ = vae()
        image, inverted = small_images.read_small(small_enough(path), known)
        z = np.asarray(model.encoder(image[np.newaxis])[0], "float64")[0]
        z = z.round(2).clip(-FARTHEST, FARTHEST)  # as the sliders have it
        varied = latent_walks.vary_widely(model.decoder, z, 8, np.random.default_rng())
        note = notes(image, inverted, [trained_models.predict(model.decoder, [z])[0]], [known])
        sheet = preview(plotting.mosaic(np.stack([image, *varied]), 3))
        said = f"z = ({z[0]:.2f}, {z[1]:.2f}). {note}".strip()
        return *map(float, z), sheet, said


def notes(image, inverted, rebuilt, known):
    """Return what is to be said of a visitor's picture and of what models made of it."""
    turned = "Inverted: the training images are light on dark. " * inverted
    note = small_images.unlike(image, rebuilt, known)
    return turned + note[:1].upper() + note[1:]


def hide(path, text, key):
    """Hide a text in a photo. A generator, so that its files go once they are sent."""
    with refusals(), tempfile.TemporaryDirectory() as folder:
        path = small_enough(path)
        target = Path(folder, f"{path.stem}_marked.png")
        secret = message_bits.derive_key(key)
        psnr = messages.hide_in_file(*watermark(), path, text, secret, target)
        before, after = (image_files.read_colour(file) for file in (path, target))
        said = f"{psnr:.1f} dB; read back from the file, and after JPEG 75"
        change = preview(0.5 + 16 * (after - before))
        button = gr.DownloadButton(value=str(target), interactive=True)
        yield (preview(before), preview(after)), change, button, said


def damage_and_read(path, key, quality, sigma, blur, kept, scale, progress=gr.Progress()):  # noqa: B008
    """Return a marked photo after what is done to it, and the message that is left in it."""
    with refusals():
        if path is None:
            raise UserError("Hide a message first")
        picture = image_files.read_colour(path)
        height, width = picture.shape[:2]
        image_files.see_that_it_fits("The resized photo", scale * height, scale * width, MEGAPIXELS)
        quality = int(quality) if quality < 100 else None
        seed = batches.seed_for("app")
        picture = damage(picture, seed, scale, kept / 100, blur, sigma, quality)
        return preview(picture), message_in(picture, key, progress)


def read_message(path, key, progress=gr.Progress()):  # noqa: B008
    """Return the message in a photo as it was uploaded."""
    with refusals():
        return message_in(image_files.read_colour(small_enough(path)), key, progress)


def message_in(picture, key, progress):
    def show(share):
        progress(share, desc="Searching at other scales and angles")

    grey, secret = messages.luminance(picture), message_bits.derive_key(key)
    text = messages.read(*watermark(), grey, secret, progress=show)
    return "No message found with this key" if text is None else text


def through_five(path):
    """Return a picture in 28x28 pixels, what each autoencoder makes of it, and a note."""
    if path is None:
        return gr.skip()
    with refusals():
        parts, known = five()
        image, inverted = small_images.read_small(small_enough(path), known[0])
        codes, rebuilt = latent_walks.rebuild_with_each(parts, image[np.newaxis])
        updates = [preview(image)]
        for kind, (result,) in rebuilt.items():
            label = f"{kind}, {codes[kind].shape[1]} numbers: MSE {metrics.mse(image, result):.4f}"
            updates.append(gr.Image(preview(result), label=label))
        return *updates, notes(image, inverted, [each[0] for each in rebuilt.values()], known)


# ---------------------------------------------------------------- what the tabs look like


def picker(label, paths, endings=own_pictures.ENDINGS):
    """Return a place to drop a file at, above samples; clicking one of these drops it there."""
    file = gr.File(label=label, file_types=list(endings), height=110)
    shown = gr.Dataset(
        components=["image"],
        samples=[[str(path)] for path in paths],
        type="index",
        label="Samples: click one",
    )
    # Otherwise one that was clicked would be deleted with the visitors' files.
    shown.keep_in_cache = {str(sample["path"]) for (sample,) in shown.samples}
    shown.click(lambda index: str(paths[index]), shown, file, show_progress="hidden")
    return file


def picture(label, kind=gr.Image, **options):
    """Return a place that shows a picture, losslessly."""
    return kind(label=label, format="png", interactive=False, buttons=["fullscreen"], **options)


def slider_of(label, height, **options):
    """Return a place that shows one picture on top of another, with a line to drag between."""
    room = height - 44  # its label is above it
    return picture(label, gr.ImageSlider, height=height, max_height=room, **options)


def clean_tab(found):
    gr.Markdown(
        "The network tells dirt from ink: look at letters under a stain, and at what a fold hid. "
        "Of a PDF or TIFF the first page is cleaned. The model is that of `clean_documents.py`."
    )
    with gr.Row():
        with gr.Column(scale=1):
            page = picker("A page: image or PDF", found["pages"], (*own_pictures.ENDINGS, ".pdf"))
            ink = gr.Radio(list(INKS), value="as it is", label="Ink")
            said = gr.Textbox(label="The cleaned file", lines=2)
            download = gr.DownloadButton("Download at full size", interactive=False)
        slider = slider_of("Before and after", 640, scale=2)
    outputs = [slider, download, said]
    events = [page.change, ink.input]
    gr.on(events, clean, [page, ink], outputs, trigger_mode="always_last", **HEAVY)


def denoise_tab(found):
    share = f"{denoise_fashion.Settings.noise:.0%}"
    gr.Markdown(
        f"Which one keeps edges and textures, and which one leaves specks? The network has only "
        f"seen clothes of 28x28 pixels with {share} of their pixels replaced: other pictures, "
        "other amounts and Gaussian noise are new to it. The model is that of `denoise_fashion.py`."
    )
    with gr.Row():
        with gr.Column():
            file = picker("A picture", found["grey"] + found["clothes"][:3])
        with gr.Column():
            kind = gr.Radio(list(KINDS), value="salt and pepper", label="Noise")
            label = "Amount: share of pixels, or standard deviation"
            amount = gr.Slider(0, 0.5, 0.1, step=0.01, label=label)
    with gr.Row():
        outputs = [picture(label) for label in ("picture", "noisy", "median filter", "network")]
    given = [file, kind, amount]
    events = [each.change for each in given]
    gr.on(events, remove_noise, given, outputs, trigger_mode="always_last", **HEAVY)


def plane_tab(found, tab):
    gr.Markdown(
        "Each place of the plane is a code of two numbers, and the decoder makes an image of each. "
        "Click, or drag: neighbours look alike, and between two kinds of clothes lie mixtures. "
        "The model is that of `vae_fashion.py`."
    )
    with gr.Row():
        with gr.Column(scale=3):
            plane = picture("The latent plane: click, or drag", elem_id="plane")
            file = picker("A piece of clothing of yours", found["clothes"])
        with gr.Column(scale=2):
            decoded = picture("Decoded", height=320)
            z_1 = gr.Slider(-FARTHEST, FARTHEST, 0, step=0.01, label="z_1, to the right")
            z_2 = gr.Slider(-FARTHEST, FARTHEST, 0, step=0.01, label="z_2, upwards")
            button = gr.Button("New clothes, from samples of the prior")
            sheet = picture("New clothes, or variations of yours")
            said = gr.Textbox(label="The code of yours", lines=2)
    tab.select(at, [z_1, z_2], [plane, decoded], **LIGHT).then(None, js=DRAG)
    plane.select(at_click, None, [z_1, z_2], **LIGHT)
    # What is shown follows the sliders, whoever moves them and in whatever order answers arrive.
    gr.on([z_1.change, z_2.change], at, [z_1, z_2], [plane, decoded], **LIGHT)
    button.click(new_clothes, None, sheet, concurrency_limit=4)
    file.change(encode, file, [z_1, z_2, sheet, said], concurrency_limit=4)


def message_tab(found):
    gr.Markdown(
        "Can you see the message? Look at smooth ground, and at what changed, 16 times as strong. "
        "Then damage the photo and read it. The model is that of `watermark_photo.py`."
    )
    with gr.Row():
        with gr.Column():
            photo = picker("A photo", found["photos"])
            text = gr.Textbox("Hello from the pixels", label="Message", max_length=640)
            key = gr.Textbox(label="Key: only who knows it reads the message", max_length=200)
            button = gr.Button("Hide", variant="primary")
            said = gr.Textbox(label="The marked photo", lines=2)
            download = gr.DownloadButton("Download the marked photo", interactive=False)
            reader = gr.Button("Read what this photo holds")
        with gr.Column(scale=2):
            with gr.Row():
                slider = slider_of("Photo and marked photo", 420)
                change = picture("What changed, 16 times", height=420)
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
                    damaged = picture("The damaged photo", height=420)
                    message = gr.Textbox(label="Message that was read", lines=2)
    outputs = [slider, change, download, said]
    gr.on([photo.change, button.click], hide, [photo, text, key], outputs, **HEAVY)
    attack.click(damage_and_read, [download, key, *sliders], [damaged, message], **HEAVY)
    reader.click(read_message, [photo, key], message, **HEAVY)


def five_tab(found):
    gr.Markdown(
        "Five ways through a bottleneck: which one blurs, which one keeps the slant of a stroke, "
        "and which makes a digit of whatever it is given? The models are those of "
        "`latent_spaces.py`, trained on handwritten digits."
    )
    with gr.Row():
        with gr.Column(scale=3):
            file = picker("A digit of yours", found["digits"])
        said = gr.Textbox(label="Note", lines=3)
    with gr.Row():
        outputs = [picture(name, min_width=300) for name in ("picture", *latent_spaces.KINDS)]
    file.change(through_five, file, [*outputs, said], concurrency_limit=4)


def guarded(app):
    """Return an ASGI app whose answers carry `POLICY`."""

    async def answer(scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, send_with_policy)

    return answer


def build(folder):
    """Return the page; sample pictures are written into a new folder."""
    folder.mkdir()
    found = samples.write_samples(folder)
    with gr.Blocks(title="Autoencoders", delete_cache=(OFTEN, KEPT)) as page:
        gr.Markdown(
            "# Autoencoders\nFive things that trained ones do. Click a sample, or take your own."
        )
        with gr.Tab("Clean a scan"):
            clean_tab(found)
        with gr.Tab("Remove noise"):
            denoise_tab(found)
        with gr.Tab("Walk the latent plane") as tab:
            plane_tab(found, tab)
        with gr.Tab("Hide a message"):
            message_tab(found)
        with gr.Tab("Five autoencoders"):
            five_tab(found)
    return page.queue(max_size=40)


def main(argv=None):
    about, examples = __doc__.split("\n\nRun it:")
    parser = command_line.Parser(
        prog="app.py",
        description=about,
        epilog="examples:" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # On Hugging Face's Spaces these variables say where to listen.
    host, port = (os.environ.get(f"GRADIO_SERVER_{name}") for name in ("NAME", "PORT"))
    parser.add_argument("--host", default=host or "127.0.0.1", help="default: this machine alone")
    parser.add_argument("--port", default=port, type=command_line.whole(1, 65_535))
    settings = parser.parse_args(argv)
    if settings.host not in ("127.0.0.1", "localhost", "::1"):
        warning = "all who can reach this machine can use the page, without a password"
        print(f"app.py: warning: --host {settings.host}: {warning}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="autoencoders_") as folder:
        tempfile.tempdir = folder  # for all that is uploaded or made
        # Gradio reads the variable each time; only DEFAULT_TEMP_DIR was set when it was imported.
        os.environ["GRADIO_TEMP_DIR"] = gr.routes.DEFAULT_TEMP_DIR = str(Path(folder, "gradio"))
        page = build(Path(folder, "samples"))
        try:
            page.launch(
                server_name=settings.host,
                server_port=settings.port,
                share=False,
                run_history=False,  # it keeps visitors' files, in the browser or elsewhere
                ssr_mode=False,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(guarded)]},
                max_file_size=MEGABYTES * 2**20,
                theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=CSS,
                quiet=True,
                prevent_thread_lock=True,
            )
            print(f"Open {page.local_url} in a browser. Ctrl-C ends it.", flush=True)
            threading.Event().wait()
        except OSError as error:
            where = f"{settings.host}, port {settings.port or 'any'}"
            raise UserError(f"{where}: can't listen ({error}); choose another --port") from None
        finally:
            page.close(verbose=False)


if __name__ == "__main__":
    command_line.start(main)
