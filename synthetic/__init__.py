"""Stand-ins for data, for a machine with no data and no network (NumPy, SciPy, Pillow)."""
