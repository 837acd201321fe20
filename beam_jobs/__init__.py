"""beam-detect: object detection over folders and buckets of pictures, as an Apache Beam job."""
