"""COCO metrics: matches, rows of detections that are gathered and sorted, and the numbers that come of them."""
