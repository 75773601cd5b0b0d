"""The two catalogs: registering, loading, metadata that stay."""

from typing import Any

import pytest
from contract_recording import Contract
from contract_toys import raised

from d2pd.d2 import ENGINE, DatasetCatalog, MetadataCatalog

NAMES = ("contract_a", "contract_b", "contract_c")


@pytest.fixture(autouse=True)
def _clean() -> Any:
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [each for each in catalog.list() if each.startswith("contract_")]:
            catalog.remove(name)


def ours(catalog: Any) -> list[str]:
    return [name for name in catalog.list() if name.startswith("contract_")]


def test_datasets_are_loaded_on_each_get(contract: Contract) -> None:
    calls: list[int] = []

    def load() -> list[dict[str, Any]]:
        calls.append(1)
        return [{"image_id": len(calls)}]

    DatasetCatalog.register("contract_a", load)
    at_first = len(calls)
    records = [DatasetCatalog.get("contract_a"), DatasetCatalog.get("contract_a")]
    assert at_first == 0
    assert records == [[{"image_id": 1}], [{"image_id": 2}]]
    contract({"at first": at_first, "records": records})


def test_names_keep_their_order(contract: Contract) -> None:
    for name in reversed(NAMES):
        DatasetCatalog.register(name, list)
    before = ours(DatasetCatalog)
    DatasetCatalog.remove("contract_b")
    assert before == list(reversed(NAMES))
    contract(
        {
            "before": before,
            "after": ours(DatasetCatalog),
            "contains": ["contract_a" in DatasetCatalog, "contract_b" in DatasetCatalog],
            "text": str(DatasetCatalog).split("(")[0],
        }
    )


def test_errors_of_the_dataset_catalog(contract: Contract) -> None:
    DatasetCatalog.register("contract_a", list)
    observed = {
        "twice": raised(DatasetCatalog.register, "contract_a", list),
        "no function": raised(DatasetCatalog.register, "contract_b", []),
        "unknown": raised(DatasetCatalog.get, "contract_c"),
        "remove unknown": raised(DatasetCatalog.remove, "contract_c"),
        "pop with default": raised(DatasetCatalog.pop, "contract_c", None),
    }
    assert observed["twice"] == "AssertionError"
    assert observed["unknown"] == "KeyError"
    contract({**observed, "left": ours(DatasetCatalog)})


def test_an_unknown_dataset_names_those_known(contract: Contract) -> None:
    DatasetCatalog.register("contract_a", list)
    with pytest.raises(KeyError, match=r"contract_c.*contract_a"):
        DatasetCatalog.get("contract_c")
    contract({"named": True})


def test_metadata_are_made_when_asked_for(contract: Contract) -> None:
    before = "contract_a" in MetadataCatalog
    data = MetadataCatalog.get("contract_a")
    assert not before
    assert MetadataCatalog.get("contract_a") is data
    contract(
        {
            "before": before,
            "after": ours(MetadataCatalog),
            "name": data.name,
            "dict": data.as_dict(),
            "no name": raised(MetadataCatalog.get, ""),
        }
    )


def test_metadata_are_set_once(contract: Contract) -> None:
    data = MetadataCatalog.get("contract_a")
    assert data.set(thing_classes=["person"], evaluator_type="coco") is data
    data.extra = 1
    observed = {
        "same again": raised(data.set, thing_classes=["person"]),
        "other": raised(data.set, thing_classes=["cyclist"]),
        "absent": raised(lambda: data.nothing),
        "get": [data.get("extra"), data.get("nothing"), data.get("nothing", 5)],
        "dict": data.as_dict(),
        "has": [hasattr(data, "extra"), hasattr(data, "nothing")],
    }
    assert observed["same again"] == "returned"
    assert observed["other"] == "AssertionError"
    contract(observed)


def test_removed_metadata_start_anew(contract: Contract) -> None:
    MetadataCatalog.get("contract_a").extra = 1
    MetadataCatalog.remove("contract_a")
    unknown = raised(MetadataCatalog.remove, "contract_b")
    assert unknown == "KeyError"
    contract({"anew": MetadataCatalog.get("contract_a").as_dict(), "unknown": unknown})


def test_builtin_datasets(contract: Contract) -> None:
    built_in = "coco_2017_val" in DatasetCatalog
    assert built_in == (ENGINE == "detectron2")
    contract(
        {"coco_2017_val": built_in},
        differences={"coco_2017_val": "the embedded engine knows no dataset by itself"},
    )
