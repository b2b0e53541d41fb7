"""Data sets of the user's own, from the local disk, never from the network."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from node.errors import TaskError
from node.tasks import Dataset


def import_datasets() -> ModuleType:
    """The library ``datasets``: off the network, without progress bars, its caches gone with the process.

    Raises
    ------
    TaskError
        Where it is not installed.
    """
    if "HF_HOME" not in os.environ:
        cache = tempfile.mkdtemp(prefix="gradvine-datasets-")
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
        os.environ["HF_HOME"] = cache
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    try:
        import datasets
        import flwr_datasets  # noqa: F401
    except ImportError:
        raise TaskError("splitting data needs flwr-datasets: pip install 'gradvine[data]'.") from None
    datasets.disable_progress_bars()
    return datasets


def read_source(path: Path, dtype: str) -> Dataset:
    raise TaskError(f"{path} can't be read yet.")
