"""Fixtures for the tests of data."""

from collections.abc import Iterator

import pytest

from d2pd.d2 import DatasetCatalog, MetadataCatalog


@pytest.fixture
def forget_datasets() -> Iterator[None]:
    """Take what a test has registered out of the catalogs."""
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        if name in MetadataCatalog:
            MetadataCatalog.remove(name)
