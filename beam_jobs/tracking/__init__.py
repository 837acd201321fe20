"""Tracks: which detections of a clip's frames are of one object."""
