"""A plugin for OCRmyPDF, which straightens pages, adds their text and writes PDF/A.

In this project's folder:

    pip install -r requirements-ocrmypdf.txt
    python -m ocrmypdf --plugin tools.scans.ocrmypdf_plugin --force-ocr --deskew scan.pdf out.pdf

Both the visible page and the one that is read are cleaned. Without an option that has it redraw
the pages, such as --force-ocr, --deskew or --clean-final, OCRmyPDF keeps the visible ones.
"""

import functools

from ocrmypdf import hookimpl
from PIL import Image

from common import images, training
from tools.scans.files import Page
from tools.scans.page import clean_page, cleaner


@functools.cache
def _cleaner():
    return cleaner(training.load_model(None, "clean_documents"))


def _clean(image):
    """Return a Pillow image cleaned, of mode 1, L or RGB, with its resolution."""
    pixels, _ = clean_page(_cleaner(), images.to_pixels(image, "page"))
    cleaned = Page(pixels, bilevel=image.mode == "1").image()
    cleaned.info["dpi"] = image.info["dpi"]
    return cleaned


@hookimpl
def filter_page_image(page, image_filename):
    """Return the file of the cleaned page, PNG or JPEG as the original."""
    path = image_filename.with_stem(f"{image_filename.stem}_cleaned")
    with Image.open(image_filename, formats=["PNG", "JPEG"]) as image:
        _clean(image).save(path, image.format, dpi=image.info["dpi"], quality=95)
    return path


@hookimpl(wrapper=True)
def filter_ocr_image(page, image):
    """Return the image for the OCR cleaned, after OCRmyPDF's own scaling of very large ones."""
    return _clean((yield) or image)
