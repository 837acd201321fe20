"""COCO's keypoints of people, and how they are joined: https://cocodataset.org/#format-data."""

from __future__ import annotations

#: In COCO's order, which is that of the model zoo's CenterNets too.
NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
#: Pairs of keypoints that are joined, numbered from 1 as in COCO's files.
SKELETON = (
    *((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9)),
    *((8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)),
)


def are_of_people(category: str, count: int) -> bool:
    """Whether `count` keypoints of a class are taken as COCO's; those of other things have an order of their own."""
    return category.casefold() == "person" and count == len(NAMES)
