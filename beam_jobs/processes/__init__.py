"""Detector processes: what one does with a picture, and how a few of them are fed, watched and replaced."""
