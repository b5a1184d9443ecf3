"""A text message in a photo: its code, the grid it is written on, embedding and extracting."""
