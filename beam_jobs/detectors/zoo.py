"""The TF2 detection zoo, as data: what TensorFlow published, under which names and figures, and where.

Source: the Object Detection API's `tf2_detection_zoo.md`. The archives lie in folders by date. No checksums were
published. Speeds and mAPs are the publisher's own (COCO 2017 val; milliseconds on its own hardware).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: The page lists http; the same host serves the same paths by https, and without checksums nothing else guards them.
ROOT = "https://download.tensorflow.org/models/object_detection/tf2"

Output = Literal["boxes", "masks", "keypoints"]

_JULY_11, _JULY_13, _FEB = ("20200711",), ("20200713",), ("20210210",)


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A model of the zoo.

    Args:
        family: its architecture, as the papers name it.
        input_size: height x width in pixels that the model resizes pictures to.
        speed_ms: published time for one picture; None where none is published, as for the next.
        box_map: published COCO mAP of boxes, in percent.
        extra: what it finds besides boxes; "boxes" for nothing else.
        extra_map: published COCO mAP of `extra`.
        dates: folders that it was published in, the preferred one first.
    """

    name: str
    family: str
    input_size: str
    speed_ms: int | None
    box_map: float | None
    extra: Output = "boxes"
    extra_map: float | None = None
    dates: tuple[str, ...] = _JULY_11

    def paths(self) -> tuple[str, ...]:
        """Where its archive may be below `ROOT` or a mirror, the preferred place first."""
        return tuple(f"{date}/{self.name}.tar.gz" for date in self.dates)


_CENTERNET, _EFFICIENTDET, _SSD, _FASTER, _MASK = "CenterNet", "EfficientDet", "SSD", "Faster R-CNN", "Mask R-CNN"

_MODELS = (
    ZooModel("centernet_hg104_512x512_coco17_tpu-8", _CENTERNET, "512x512", 70, 41.9, dates=_JULY_13),
    ZooModel("centernet_hg104_512x512_kpts_coco17_tpu-32", _CENTERNET, "512x512", 76, 40.0, "keypoints", 61.4),
    ZooModel("centernet_hg104_1024x1024_coco17_tpu-32", _CENTERNET, "1024x1024", 197, 44.5, dates=_JULY_13 + _JULY_11),
    ZooModel("centernet_hg104_1024x1024_kpts_coco17_tpu-32", _CENTERNET, "1024x1024", 211, 42.8, "keypoints", 64.5),
    ZooModel("centernet_resnet50_v1_fpn_512x512_coco17_tpu-8", _CENTERNET, "512x512", 27, 31.2),
    ZooModel("centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8", _CENTERNET, "512x512", 30, 29.3, "keypoints", 50.7),
    ZooModel("centernet_resnet101_v1_fpn_512x512_coco17_tpu-8", _CENTERNET, "512x512", 34, 34.2),
    ZooModel("centernet_resnet50_v2_512x512_coco17_tpu-8", _CENTERNET, "512x512", 27, 29.5),
    ZooModel("centernet_resnet50_v2_512x512_kpts_coco17_tpu-8", _CENTERNET, "512x512", 30, 27.6, "keypoints", 48.2),
    ZooModel("centernet_mobilenetv2fpn_512x512_coco17_od", _CENTERNET, "512x512", 6, 23.4, dates=_FEB),
    ZooModel("centernet_mobilenetv2fpn_512x512_coco17_kpts", _CENTERNET, "512x512", 6, None, "keypoints", 41.7, _FEB),
    ZooModel("efficientdet_d0_coco17_tpu-32", _EFFICIENTDET, "512x512", 39, 33.6),
    ZooModel("efficientdet_d1_coco17_tpu-32", _EFFICIENTDET, "640x640", 54, 38.4),
    ZooModel("efficientdet_d2_coco17_tpu-32", _EFFICIENTDET, "768x768", 67, 41.8),
    ZooModel("efficientdet_d3_coco17_tpu-32", _EFFICIENTDET, "896x896", 95, 45.4),
    ZooModel("efficientdet_d4_coco17_tpu-32", _EFFICIENTDET, "1024x1024", 133, 48.5),
    ZooModel("efficientdet_d5_coco17_tpu-32", _EFFICIENTDET, "1280x1280", 222, 49.7),
    ZooModel("efficientdet_d6_coco17_tpu-32", _EFFICIENTDET, "1280x1280", 268, 50.5),
    ZooModel("efficientdet_d7_coco17_tpu-32", _EFFICIENTDET, "1536x1536", 325, 51.2),
    ZooModel("ssd_mobilenet_v2_320x320_coco17_tpu-8", _SSD, "320x320", 19, 20.2),
    ZooModel("ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8", _SSD, "640x640", 48, 29.1),
    ZooModel("ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8", _SSD, "320x320", 22, 22.2),
    ZooModel("ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8", _SSD, "640x640", 39, 28.2),
    ZooModel("ssd_resnet50_v1_fpn_640x640_coco17_tpu-8", _SSD, "640x640", 46, 34.3),
    ZooModel("ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8", _SSD, "1024x1024", 87, 38.3),
    ZooModel("ssd_resnet101_v1_fpn_640x640_coco17_tpu-8", _SSD, "640x640", 57, 35.6),
    ZooModel("ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8", _SSD, "1024x1024", 104, 39.5),
    ZooModel("ssd_resnet152_v1_fpn_640x640_coco17_tpu-8", _SSD, "640x640", 80, 35.4),
    ZooModel("ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8", _SSD, "1024x1024", 111, 39.6),
    ZooModel("faster_rcnn_resnet50_v1_640x640_coco17_tpu-8", _FASTER, "640x640", 53, 29.3),
    ZooModel("faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8", _FASTER, "1024x1024", 65, 31.0),
    ZooModel("faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8", _FASTER, "800x1333", 65, 31.6),
    ZooModel("faster_rcnn_resnet101_v1_640x640_coco17_tpu-8", _FASTER, "640x640", 55, 31.8),
    ZooModel("faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8", _FASTER, "1024x1024", 72, 37.1),
    ZooModel("faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8", _FASTER, "800x1333", 77, 36.6),
    ZooModel("faster_rcnn_resnet152_v1_640x640_coco17_tpu-8", _FASTER, "640x640", 64, 32.4),
    ZooModel("faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8", _FASTER, "1024x1024", 85, 37.6),
    ZooModel("faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8", _FASTER, "800x1333", 101, 37.4),
    ZooModel("faster_rcnn_inception_resnet_v2_640x640_coco17_tpu-8", _FASTER, "640x640", 206, 37.7),
    ZooModel("faster_rcnn_inception_resnet_v2_1024x1024_coco17_tpu-8", _FASTER, "1024x1024", 236, 38.7),
    ZooModel("mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8", _MASK, "1024x1024", 301, 39.0, "masks", 34.6),
)

#: By name, in the order in which the zoo lists them.
ZOO: Mapping[str, ZooModel] = {model.name: model for model in _MODELS}
