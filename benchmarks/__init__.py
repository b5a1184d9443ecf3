"""What README.md and docs/results.md report: trainings, attacks on watermarks, OCR, old pages."""
