import copy
import pickle

import pytest

from d2pd.embedded.catalog import DatasetCatalog, Metadata, MetadataCatalog


@pytest.fixture
def name():
    yield "catalog_test"
    DatasetCatalog.pop("catalog_test", None)
    MetadataCatalog.pop("catalog_test", None)


def test_a_dataset_is_loaded_on_each_get_and_not_before(name):
    calls = []
    DatasetCatalog.register(name, lambda: calls.append(1) or [{"image_id": 1}])
    assert name in DatasetCatalog
    assert name in DatasetCatalog.list()
    assert calls == []
    assert DatasetCatalog.get(name) == DatasetCatalog.get(name) == [{"image_id": 1}]
    assert calls == [1, 1]
    DatasetCatalog.remove(name)
    assert name not in DatasetCatalog.list()


def test_metadata_of_a_name_is_one_object(name):
    metadata = MetadataCatalog.get(name)
    assert metadata.set(thing_classes=["person"], evaluator_type="coco") is metadata
    assert MetadataCatalog.get(name) is metadata
    assert metadata.thing_classes == ["person"]
    assert metadata.get("thing_classes") == ["person"]
    assert metadata.get("colour", "red") == "red"
    assert metadata.as_dict() == {
        "name": name,
        "thing_classes": ["person"],
        "evaluator_type": "coco",
    }
    metadata.as_dict()["thing_classes"] = []
    assert metadata.thing_classes == ["person"]
    MetadataCatalog.remove(name)
    assert name not in MetadataCatalog.list()


def test_metadata_can_be_copied_and_pickled():
    metadata = Metadata(name="a", thing_classes=["person"])
    assert copy.deepcopy(metadata) == pickle.loads(pickle.dumps(metadata)) == metadata


def test_mistakes_are_told(name):
    with pytest.raises(KeyError, match="catalog_test is not registered; registered are"):
        DatasetCatalog.get(name)
    with pytest.raises(AssertionError, match="needs a function"):
        DatasetCatalog.register(name, [])
    DatasetCatalog.register(name, list)
    with pytest.raises(AssertionError, match="already registered"):
        DatasetCatalog.register(name, list)
    metadata = MetadataCatalog.get(name).set(thing_classes=["person"])
    metadata.thing_classes = ["person"]
    with pytest.raises(AssertionError, match=r"\['person'\] and cannot become \['dog'\]"):
        metadata.thing_classes = ["dog"]
    with pytest.raises(AttributeError, match="catalog_test has no colour; it has: name, thing_cl"):
        _ = metadata.colour
    with pytest.raises(AssertionError, match="needs a name"):
        MetadataCatalog.get("")
    with pytest.raises(KeyError):
        DatasetCatalog.remove("nothing")
    assert name in str(DatasetCatalog)
    assert name in repr(MetadataCatalog)
