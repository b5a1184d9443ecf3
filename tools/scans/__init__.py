"""Cleaning scans: pages of images, TIFFs and PDFs, one by one or a whole archive."""

from tools.scans.document import Options, clean_first_page
from tools.scans.page import cleaner

__all__ = ["Options", "clean_first_page", "cleaner"]
