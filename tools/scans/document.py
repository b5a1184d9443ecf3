"""One file of one or more pages: read, cleaned, written."""

import dataclasses
import shutil

from common import files, images
from common.cli import UserError
from tools.scans.files import (
    KINDS,
    MULTIPAGE,
    NO_BILEVEL,
    holds_only_pages,
    read_first_page,
    read_pages,
    write_pages,
)
from tools.scans.ground import is_torn
from tools.scans.page import clean_page

SUFFIXES = {"pdf": ".pdf", "tiff": ".tif", "png": ".png", "jpeg": ".jpg"}
MIN_REPORTED_LOSS = 0.05  # share of the ink; a clean page loses none


@dataclasses.dataclass(frozen=True)
class Options:
    """How files are cleaned."""

    format: str = "same"  # or "pdf", "tiff", "png", "jpeg"
    bilevel: bool = False  # whether pages become black and white, in 1 bit
    gray: bool = False  # whether colored ink becomes gray

    def suffix(self, path):
        """Return the suffix of the cleaned file: the original's, if its kind stays the same."""
        kind = KINDS.get(path.suffix.lower())
        if self.format != "same":
            new_kind = self.format
        elif self.bilevel and kind in NO_BILEVEL:
            new_kind = "tiff"
        else:
            new_kind = kind or "png"
        return path.suffix if new_kind == kind else SUFFIXES[new_kind]


def clean_file(clean, source, path, options):
    """Clean all pages of a file into a new one, whose suffix is its kind.

    An image file of which no page changes is copied if it would grow or lose quality, and holds
    nothing but its pages.

    `clean` is a function that `page.cleaner` returns. Returns what the record keeps: {"pages":
    count, "input_sha256", "sha256", "notes": list of texts}. Raises UserError if the file cannot be
    read.
    """
    kind = KINDS[path.suffix.lower()]
    result = {"pages": 0, "input_sha256": files.sha256(source)}
    notes = []
    unchanged = True

    def cleaned_pages():
        nonlocal unchanged
        for page in read_pages(source, multipage=kind in MULTIPAGE):
            result["pages"] += 1
            cleaned, page_notes = _clean(clean, page, options, kind)
            notes.extend(f"page {result['pages']}: {note}" for note in page_notes)
            unchanged = unchanged and cleaned.unchanged and not page.sheet
            yield cleaned

    input_bytes = source.stat().st_size
    try:
        lost = write_pages(cleaned_pages(), path, input_bytes)
    except (UserError, OSError):
        raise
    except Exception as error:  # Pillow and PDFium raise many kinds, and other files are waiting
        raise UserError(f"{source}: cannot be cleaned ({error!r})") from error
    would_suffer = kind in NO_BILEVEL or path.stat().st_size > input_bytes
    if unchanged and would_suffer and holds_only_pages(source, kind, result["pages"]):
        shutil.copyfile(source, path)
    else:
        notes += lost
    output_bytes = path.stat().st_size
    if output_bytes > 1.1 * input_bytes + 10_000:
        notes.append(f"grew from {input_bytes / 1e3:,.0f} to {output_bytes / 1e3:,.0f} kB")
    return result | {"sha256": files.sha256(path), "notes": notes}


def clean_first_page(clean, source, folder, options, max_megapixels):
    """Clean the first page of a file into a folder; return (`Page` before, after, path, notes).

    Raises UserError if the file cannot be read, its page is larger than `max_megapixels`, or the
    output cannot be written.
    """
    page = read_first_page(source)
    height, width = page.pixels.shape[:2]
    images.check_pixels(source, width, height, max_megapixels)
    target = folder / f"{source.stem}{options.suffix(source)}"
    cleaned, notes = _clean(clean, page, options, KINDS[target.suffix.lower()])
    with files.write_whole(target) as temporary:
        notes += write_pages([cleaned], temporary, source.stat().st_size)
    return page, cleaned, target, notes


def _clean(clean, page, options, kind):
    """Return a `Page` cleaned, for a file of this kind, and a list of notes about it."""
    bilevel = options.bilevel or (page.bilevel and kind not in NO_BILEVEL)
    pixels, lost = clean_page(clean, page.pixels, color=not (options.gray or bilevel))
    unchanged = bilevel == page.bilevel and bool((pixels == page.pixels).all())
    cleaned = dataclasses.replace(page, pixels=pixels, bilevel=bilevel, unchanged=unchanged)
    notes = [page.lowered] if page.lowered and not (kind == "pdf" and cleaned.stays) else []
    if lost >= MIN_REPORTED_LOSS:
        notes.append(f"in places {lost:.0%} of what looks like ink was removed; compare")
    if not unchanged and is_torn(page.pixels, pixels):
        notes.append("a picture is partly removed; compare")
    return cleaned, notes
