"""Pixels: what counts as a picture, how it is read and written, and how detections are drawn on it."""
