"""The TF Object Detection API itself: checkpoints become SavedModels with it, in an environment of its own.

It needs TensorFlow 2.15 on Python 3.11, and shares no environment with this program. `environment` makes one in the
cache, `export_program` runs inside it, `checkpoint` says what there is to export, `export` has it done.
"""

from __future__ import annotations
