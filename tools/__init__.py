"""Trained models at work on your own files. Nothing here trains."""
