"""A run on disk: its plan, its parts, how they are committed, and the manifest."""
