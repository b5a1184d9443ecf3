"""Messages in image files, and what the command line of watermark_photo.py prints about them."""

import contextlib
import sys

import rich.console
import rich.progress

from common import files, images
from common.cli import UserError
from common.files import printable
from tools import metadata
from tools.messages import code, photo

NO_MESSAGE = (
    "no message with this key; or the photo was scaled below half, or stretched by over 10%"
)


def check(paths):
    """Raise UserError unless all paths are files, and a single one is an image."""
    for path in paths:
        files.check_file(path)
    if len(paths) == 1:
        with images.open_image(paths[0]):
            pass


def embed_in_file(watermark, path, text, key, target, file_format="png"):
    """Write a marked copy of an image file to `target`, "png" or "jpeg", and return its PSNR.

    Raises UserError if the file cannot be read, is transparent, or cannot hold the message.
    """
    with images.open_image(path) as image:
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            raise UserError(f"{path}: has transparent parts, which a copy would lose; flatten it")
        image_metadata, dpi = metadata.read(image), metadata.read_dpi(image)
        save_options = metadata.save_options(image_metadata, file_format, dpi)
        save_options["icc_profile"] = image.info.get("icc_profile") or b""
    picture = images.read_color(path)
    marked = watermark.embed(picture, text, key, file_format, **save_options)
    if marked is None:
        raise UserError(
            f"{path}: not written, because {len(text.encode())} bytes could not be read back "
            "after JPEG 75; it is too small or too flat, and holds "
            f"{watermark.capacity(picture)} bytes"
        )
    content, psnr = marked
    with files.write_whole(target) as temporary:
        temporary.write_bytes(content)
    return psnr


def reductions(path):
    """Return what a marked copy of an image file loses, as "; 16 bits became 8", or ""."""
    with images.open_image(path) as image:
        reduced = "; CMYK became RGB" if image.mode == "CMYK" else ""
        if image.mode in ("I", "F"):
            reduced += "; 32 bits became 8"
        elif ";16" in f"{image.mode} {image.tile}":  # colors of 16 bits have a mode of 8
            reduced += "; 16 bits became 8"
    return reduced


def embed_in_files(watermark, paths, text, key, output_dir, file_format="png"):
    """Write a marked copy of each image file; return the exit code of `for_each`."""
    key = code.derive_key(key)
    code.encode(text, 0, 0, key)  # refused before a folder is made
    suffix = ".png" if file_format == "png" else ".jpg"
    targets = dict(images.output_paths(paths, output_dir, "watermark_photo_marked", [suffix]))

    def embed(path):
        psnr = embed_in_file(watermark, path, text, key, targets[path], file_format)
        quality = f"{psnr:.1f} dB, read back also after JPEG 75{reductions(path)}"
        print(f"Wrote {printable(targets[path])}: {quality}", flush=True)

    try:
        return for_each(list(targets), embed)
    finally:
        if not output_dir:
            with contextlib.suppress(OSError):  # files are in it
                next(iter(targets.values())).parent.rmdir()


def extract_from_files(watermark, paths, key):
    """Print the message of each image file; return the exit code, 1 if one has none."""
    key, without_message = code.derive_key(key), []

    def extract(path):
        gray = photo.luminance(images.read_color(path))
        with progress_bar(path) as progress:
            text = watermark.extract(gray, key, progress=progress)
        if text is None:
            without_message.append(path)
            print(f"{printable(path)}: {NO_MESSAGE}", file=sys.stderr, flush=True)
        else:
            print(f"{printable(path)}: {printable(text)}", flush=True)

    return for_each(paths, extract) or min(len(without_message), 1)


def print_capacity(watermark, paths):
    """Print how many bytes of a message each image file can hold; return the exit code."""

    def print_one(path):
        size = watermark.capacity(images.read_color(path))
        print(f"{printable(path)}: {size} bytes", flush=True)

    return for_each(paths, print_one)


def for_each(paths, work):
    """Call work(path) for each file; return the exit code, 1 if some of several files failed.

    Their errors are printed on standard error. That of a single file is raised, as UserError.
    """
    exit_code = 0
    for path in paths:
        try:
            work(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            exit_code = 1
            print(printable(error), file=sys.stderr, flush=True)
    return exit_code


@contextlib.contextmanager
def progress_bar(path):
    """Yield a function that shows the share of a search that is done, on a terminal."""
    console = rich.console.Console(stderr=True)
    bar = rich.progress.Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(f"{printable(path)}: searching", total=1)
        yield lambda share: bar.update(task, completed=share)
