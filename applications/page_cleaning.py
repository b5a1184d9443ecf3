"""A page of any size, or many image files, through the network that cleans documents."""

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import importlib.util
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow
from rich import progress

from applications import page_files, page_record
from applications.denoising import in_tiles, pad_to_multiple
from applications.page_ink import bands, leave_faint, lost_ink, paper_of
from common import UserError, files, image_files
from common.files import printable

# Pixels. What is further away than the margin changes a cleaned page by less than a level of 255.
TILE, MARGIN = 928, 224
MULTIPLE = 32  # of the sides of what the U-Net takes
SMALL = 1_000_000  # pixels; letters of a page of no more are few pixels high
SECONDS_BETWEEN_LINES = 60  # of progress, where there is no terminal
WORTH_SAYING = 0.05  # a share of lost ink; a clean page has none


def cleaner(network):
    """Return a function that cleans a page of any size with a network, tile by tile.

    So the network's memory does not grow with the page, and no seam shows: each tile is looked at
    with all around it that matters. The function takes and returns float32 in [0, 1], shape
    (height, width, 1). A small page is gone over twice, the second time upside down, and the mean
    taken: the errors at the edges of its letters, where nearly all error is, differ. What is much
    fainter than the page's ink is left so, see `leave_faint`.
    """
    # With an open shape, so that it is traced once: half again as fast as calling the network.
    any_size = tensorflow.TensorSpec((1, None, None, 1), "float32")

    @tensorflow.function(input_signature=[any_size], autograph=False)
    def run(tile):
        return network(tile, training=False)

    def of_any_size(tile):
        padded = pad_to_multiple(tile, MULTIPLE)[np.newaxis]
        return np.asarray(run(padded))[0, : tile.shape[0], : tile.shape[1]]

    def once(page):
        return in_tiles(of_any_size, np.asarray(page, "float32"), TILE, MARGIN)

    def clean(page):
        cleaned = once(page)
        if page.size <= SMALL:
            cleaned = (cleaned + once(page[::-1, ::-1])[::-1, ::-1]) / 2
        leave_faint(page, cleaned)
        return cleaned

    return clean


def clean_page(clean, page, colour=True):
    """Return a page cleaned, and the share of its ink that was lost.

    Coloured ink is shown to the network as dark as in the channel where it is darkest: a red stamp
    is only half as dark in grey. What the network leaves of it then gets its colour back. Where the
    colour is stronger than any stain's, it stays whatever the network says.

    Args:
        clean: as `cleaner` returns it.
        page: uint8, shape (height, width, 1 or 3).
        colour: whether ink may be coloured; else it comes out grey.

    Returns:
        (uint8 of shape (height, width, 3), or 1 channel where there is no colour, share in [0, 1])
    """
    height, width, channels = page.shape
    colour, grey = colour and channels == 3, np.empty((height, width, 1), "float32")
    paper, _ = paper_of(page)
    for rows in bands(height):
        grey[rows] = _grey(page[rows], paper(rows))
    cleaned = clean(grey)
    if channels == 3:
        for rows in bands(height):
            cleaned[rows] = _with_strong_colours(cleaned[rows], page[rows], paper(rows))
    lost = lost_ink(grey, cleaned)
    del grey
    result = np.empty((height, width, 3 if colour else 1), np.uint8)
    for rows in bands(height):
        hue = _hue(page[rows], paper(rows)) if colour else 0
        result[rows] = np.round((cleaned[rows] + (1 - cleaned[rows]) * hue) * 255)
    if all((result[rows] == result[rows, :, :1]).all() for rows in bands(height)):
        result = result[..., :1]
    return result, lost


def _colour(page, paper):
    """Return (page divided by its paper, its least channel, greatest less least channel)."""
    divided = np.minimum(page / np.maximum(paper, 1), 1)
    least = divided.min(-1, keepdims=True)
    return divided, least, divided.max(-1, keepdims=True) - least


def _between(values, low, high):
    """Return 0 up to `low`, 1 from `high`, and a straight line between."""
    return np.clip((values - low) / (high - low), 0, 1)


def _with_strong_colours(cleaned, page, paper):
    """Return cleaned rows, in grey, with ink where its colour is too strong for a stain."""
    _, least, colour = _colour(page, paper)
    return cleaned + _between(colour, 0.3, 0.45) * (np.minimum(cleaned, least) - cleaned)


def _grey(page, paper):
    """Return rows of a page in grey, float32 in [0, 1], coloured ink as dark as it is."""
    if page.shape[2] == 1:
        return page.astype("float32") / 255
    weights = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601
    _, least, colour = _colour(page, paper)
    grey, ground = (page @ weights)[..., np.newaxis], (paper @ weights)[..., np.newaxis]
    darker = np.minimum(least * ground, grey)
    return (grey + _between(colour, 0.1, 0.25) * (darker - grey)) / 255


def _hue(page, paper):
    """Return how much lighter than its darkest channel ink is in each, in [0, 1]; 0 is grey."""
    divided, least, colour = _colour(page, paper)
    return _between(colour, 0.1, 0.25) * (divided - least) / np.maximum(1 - least, 1e-3)


# ---------------------------------------------------------------- files


@dataclasses.dataclass(frozen=True)
class Options:
    """What the outputs should be like.

    Attributes:
        format: "same", or one of `page_files.KINDS`.
        bilevel: whether pages come out black and white, in 1 bit.
        grey: whether coloured ink comes out grey.
    """

    format: str = "same"
    bilevel: bool = False
    grey: bool = False

    def __post_init__(self):
        if self.bilevel and self.grey:
            raise UserError("--bilevel and --grey exclude each other; give one of them")
        if self.bilevel and self.format in page_files.GREY_ONLY:
            raise UserError(f"--format {self.format} has no 1-bit pages; leave --bilevel out")

    def ending(self, path):
        """Return the ending of what becomes of a file: its own, where the format stays."""
        kind = page_files.KINDS.get(path.suffix.lower())
        if self.format != "same":
            wanted = self.format
        elif self.bilevel and kind in page_files.GREY_ONLY:
            wanted = "tiff"
        else:
            wanted = kind or "png"
        if wanted == kind:
            return path.suffix
        return {"tiff": ".tif", "jpeg": ".jpg"}.get(wanted, f".{wanted}")


def clean_file(clean, source, target, options, replace=False):
    """Clean all pages of one file. The output is written whole, or not at all.

    Args:
        clean: as `cleaner` returns it.
        source, target: the file to read, and the one to write, whose ending says its kind.
        options: the `Options`.
        replace: whether what stands at `target` may be replaced.

    Returns:
        What the record keeps of it: {"pages", "input_sha256", "sha256", "notes": [text]}.

    Raises:
        UserError: the file can't be read, or the output can't be written.
    """
    files.see_that_file(source)
    with files.write_whole(target, replace) as temporary:
        return write_cleaned(clean, source, temporary, options)


def write_cleaned(clean, source, path, options):
    """Write all pages of a file, cleaned, to a new one; see `clean_file`."""
    kind = page_files.KINDS[path.suffix.lower()]
    notes, count = [], 0

    def cleaned_pages():
        nonlocal count
        for page in page_files.read_pages(source, kind in page_files.SEVERAL):
            count += 1
            cleaned, said = _clean_as(clean, page, options, kind)
            notes.extend(f"page {count}: {text}" for text in said)
            yield cleaned

    try:
        before, input_hash = source.stat().st_size, files.sha256(source)
        notes += page_files.write_pages(cleaned_pages(), path, before)
        after, output_hash = path.stat().st_size, files.sha256(path)
    except (UserError, OSError):
        raise
    except Exception as error:  # 10,000 other files must not wait for what is odd about this one
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{source}: cannot be cleaned ({reason})") from error
    if after > 1.1 * before + 10_000:
        notes.append(f"grew from {before / 1e3:,.0f} to {after / 1e3:,.0f} kB")
    return {"pages": count, "input_sha256": input_hash, "sha256": output_hash, "notes": notes}


def _clean_as(clean, page, options, kind):
    """Return a `Page` cleaned, for a file of this kind, and what is to be said of it, as a list."""
    bilevel = options.bilevel or (page.bilevel and kind not in page_files.GREY_ONLY)
    pixels, lost = clean_page(clean, page.pixels, not (options.grey or bilevel))
    notes = [f"{lost:.0%} of what looks like ink is gone, compare"] * (lost >= WORTH_SAYING)
    return dataclasses.replace(page, pixels=pixels, bilevel=bilevel), notes


def clean_first_page(clean, source, folder, options, most):
    """Clean the first page of a file, and write it into a folder under the file's name.

    Args:
        clean: as `cleaner` returns it.
        source: the file to read.
        folder: where the output goes.
        options: the `Options`.
        most: megapixels that the page may have.

    Returns:
        (`Page` before, after, path of the output, notes as a list of texts).

    Raises:
        UserError: the file can't be read, the page is too large, or the output can't be written.
    """
    page = page_files.read_first_page(source)
    image_files.see_that_it_fits(source, *page.pixels.shape[:2], most)
    target = folder / f"{source.stem}{options.ending(source)}"
    cleaned, notes = _clean_as(clean, page, options, page_files.KINDS[target.suffix.lower()])
    with files.write_whole(target) as temporary:
        notes += page_files.write_pages([cleaned], temporary, source.stat().st_size)
    return page, cleaned, target, notes


def clean_files(network, inputs, output_dir, options, force=False, dask=None):
    """Clean files, folders and patterns into a folder, and keep a record there.

    Args:
        network: of clean_documents.py.
        inputs: what to clean.
        output_dir: where the outputs go; None: a new folder in runs/.
        options: the `Options`.
        force: whether outputs that the record lists may be replaced.
        dask: whose workers do it, see `cluster.workers`; None: this process.

    Returns:
        The exit code: 1 if some of several files could not be cleaned.

    Raises:
        UserError: the only file could not be cleaned, or an input is missing, or an output would
            replace something, or the workers can't do it.
    """
    planned = page_record.plan(page_record.find(inputs), options, output_dir)
    new = _missing([Path(output_dir or "runs")])
    folder = files.output_folder(output_dir, f"{network.name}_cleaned")
    new = [*_missing([folder / name for name in planned]), *[folder] * (not output_dir), *new]
    weights = hashlib.sha256(b"".join(weight.tobytes() for weight in network.get_weights()))
    with contextlib.ExitStack() as at_end:
        lock = files.lock(folder)
        at_end.callback(lambda: lock is None or os.close(lock))
        at_end.callback(_remove_empty, new)
        record = page_record.Record(folder, weights.hexdigest(), dataclasses.asdict(options))
        left = record.left_to_do(planned, force)
        at_end.callback(record.close)
        cleaned = _cleaned_here(network, left, record, options)
        if dask and left:
            from applications import cluster  # its packages are optional

            cleaned = at_end.enter_context(cluster.workers(dask, network, left, record, options))
        failed = _enter_all(cleaned, left, record, len(planned))
    for source in failed:
        print(f"Failed: {printable(source)}", flush=True)
    done = f"{len(planned) - len(failed)} of {len(planned)}"
    print(f"{done} files are in {printable(folder)}", flush=True)
    return 1 if failed else 0


def _missing(paths):
    """Return which of some paths, and of the folders above them, are not there, deepest first."""
    every = {folder for path in paths for folder in (path, *path.parents)}
    missing = (folder for folder in every if not os.path.lexists(folder))
    return sorted(missing, key=lambda folder: len(folder.parts), reverse=True)


def _remove_empty(folders):
    for folder in folders:
        with contextlib.suppress(OSError):  # something is in it
            folder.rmdir()


def dask_address(text):
    """Return an argparse type's value: where dask's workers are, "local" or tcp://HOST:PORT."""
    if importlib.util.find_spec("distributed") is None:
        way_out = "pip install -r requirements-cluster.txt"
        raise UserError(f"--dask needs packages of its own: {way_out}")
    if text != "local" and not re.fullmatch(r"[a-z]+://\S+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither local nor as tcp://HOST:8786")
    return text


def _cleaned_here(network, left, record, options):
    """Clean {name: file}, and yield (name, what `clean_file` returns, or its UserError)."""
    clean = cleaner(network)
    for name, source in left.items():
        try:
            target, replace = record.folder / name, record.may_replace(name)
            result = clean_file(clean, source, target, options, replace)
        except UserError as error:
            result = error
        yield name, result


def _enter_all(cleaned, left, record, count):
    """Enter each of the `cleaned` in the record, say so, and return those that failed."""
    failed, done, pages = [], count - len(left), 0
    if done:
        print(f"{done} of {count} files are there already", flush=True)
    column = progress.TextColumn("{task.fields[speed]}")
    columns = progress.BarColumn(), progress.MofNCompleteColumn(), column
    start, said = time.monotonic(), 0
    here = sys.stderr.isatty()  # or what is said there would go to the bar's stream
    with progress.Progress(*columns, progress.TimeRemainingColumn(), redirect_stderr=here) as bar:
        bar.disable = not bar.console.is_terminal
        task = bar.add_task("", total=len(left), speed="")
        try:
            for name, result in cleaned:
                if isinstance(result, UserError):
                    if count == 1:
                        raise result
                    failed.append(left[name])
                    print(printable(result), file=sys.stderr, flush=True)
                else:
                    done, pages = done + 1, pages + result["pages"]
                    record.add(name, left[name], result)
                    print(printable(_line(record.folder / name, result)), flush=True)
                seconds = time.monotonic() - start
                speed = f"{pages / seconds:,.2f} pages/s"
                bar.update(task, advance=1, speed=speed)
                if bar.disable and seconds > said + SECONDS_BETWEEN_LINES:
                    said = seconds
                    to_go = len(left) / bar.tasks[0].completed * seconds - seconds
                    print(f"{done} of {count} files, {speed}, {_clock(to_go)} left", flush=True)
        except KeyboardInterrupt as error:
            where = f"{done} of {count} files are in {record.folder}"
            error.add_note(f"{where}; the same command with this --output-dir goes on.")
            raise
    if pages > 1:
        print(f"{pages} pages in {_clock(seconds)}, {speed}", flush=True)
    return failed


def _clock(seconds):
    """Return hours, minutes and seconds as text."""
    return str(datetime.timedelta(seconds=round(seconds)))


def _line(target, result):
    """Say of a file that it was written, with all that is to be noted."""
    pages = f"{result['pages']} pages" if result["pages"] > 1 else "1 page"
    return "; ".join([f"Wrote {target} ({pages})", *result["notes"]])
