"""beam-detect: object detection over folders and buckets of pictures and video, as an Apache Beam job."""
