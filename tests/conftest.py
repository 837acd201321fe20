"""What several modules of tests need, and what is slow to make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import saved_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SavedModels of `saved_models`, each under its name."""
    folder = tmp_path_factory.mktemp("models")
    saved_models.build_all(folder)
    return folder
