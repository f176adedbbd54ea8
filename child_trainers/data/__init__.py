"""Data sets: real images and labels, checked on the way in (`dataset.ImageData` is what every loader returns)."""
