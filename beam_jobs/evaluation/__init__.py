"""COCO metrics: states that merge, matches, and the numbers that come of them."""
