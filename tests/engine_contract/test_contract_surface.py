"""What ``d2pd.d2`` offers: names, signatures, members, and where the engines differ in them."""

import inspect
from types import ModuleType
from typing import Any

from contract_recording import Contract

from d2pd import d2

# Members of Detectron2's classes and modules that the embedded engine does without.
LEFT_OUT: dict[str, set[str]] = {
    "GeneralizedRCNN": {"visualize_training"},
    "hooks": {
        "AutogradProfiler",
        "BestCheckpointer",
        "PreciseBN",
        "TorchMemoryStats",
        "TorchProfiler",
    },
}

# Members that the embedded engine inherits, where Detectron2 defines them for its manual.
INHERITED: dict[str, set[str]] = {"CfgNode": {"dump"}}

HOOKS = (
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
)


def kind_of(value: Any) -> str:
    """Return what a name stands for."""
    if isinstance(value, ModuleType):
        return "module"
    if inspect.isclass(value):
        return "class"
    if inspect.isroutine(value):
        return "function"
    return "constant" if isinstance(value, str) else "object"


def signature(value: Any) -> str:
    """Return names and defaults of parameters, without types."""
    return ", ".join(shown(each) for each in inspect.signature(value).parameters.values())


def shown(parameter: inspect.Parameter) -> str:
    """Return a parameter as it is passed: what collects the rest has no name of its own."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind)
    if stars:
        return stars
    text = f"{parameter.name}:" if parameter.kind is parameter.KEYWORD_ONLY else parameter.name
    default = parameter.default
    if default is parameter.empty:
        return text
    simple = default is None or isinstance(default, str | int | float | bool | tuple)
    return f"{text}={default!r}" if simple else f"{text}={type(default).__name__}"


def own_classes(value: type) -> list[type]:
    """Return the class and those bases that belong to the engine."""
    return [
        each
        for each in value.__mro__
        if each.__module__.startswith(("detectron2.", "d2pd.embedded."))
    ]


def members(value: Any) -> list[str]:
    """Return the public members that the engine itself defines."""
    if isinstance(value, ModuleType):
        found = set(getattr(value, "__all__", ())) or {
            name
            for name, each in vars(value).items()
            if getattr(each, "__module__", None) == value.__name__
        }
    else:
        kind = value if inspect.isclass(value) else type(value)
        found = {name for each in own_classes(kind) for name in vars(each)}
    return sorted(name for name in found if not name.startswith("_"))


def engine_names() -> dict[str, Any]:
    return {name: getattr(d2, name) for name in sorted(d2.__all__) if name != "ENGINE"}


def test_names_of_the_surface(contract: Contract) -> None:
    kinds = {name: kind_of(value) for name, value in engine_names().items()}
    public = {name for name in vars(d2) if not name.startswith("_")}
    assert set(kinds) <= public
    assert {"SimpleTrainer", "AMPTrainer"}.isdisjoint(public)
    contract(kinds)


def test_signatures_of_functions(contract: Contract) -> None:
    found = {
        name: signature(value)
        for name, value in engine_names().items()
        if kind_of(value) == "function"
    }
    assert found["build_model"] == "cfg"
    reasons = {
        "setup_logger": "each engine logs under its own name",
        "detector_postprocess": "there are no masks, hence no threshold of theirs",
    }
    contract(found, differences=reasons)


def test_signatures_of_classes(contract: Contract) -> None:
    classes = {name: value for name, value in engine_names().items() if inspect.isclass(value)}
    classes |= {f"hooks.{name}": getattr(d2.hooks, name) for name in HOOKS}
    # Their constructors are those of an enumeration, of torch, of fvcore.
    skipped = {"BoxMode", "Backbone", "CfgNode"}
    found = {name: signature(each) for name, each in classes.items() if name not in skipped}
    assert found["EventStorage"] == "start_iter=0"
    reasons = {
        "GeneralizedRCNN": "it draws no pictures: no vis_period",
        "FPN": "no key asks for square images: no square_pad",
    }
    contract(found, differences=reasons)


def test_signatures_of_methods(contract: Contract) -> None:
    found: dict[str, str] = {}
    for owner, value in engine_names().items():
        if not inspect.isclass(value):
            continue
        for name in set(members(value)) - LEFT_OUT.get(owner, set()) - INHERITED.get(owner, set()):
            method = inspect.getattr_static(value, name)
            method = getattr(method, "__func__", method)
            if inspect.isfunction(method):
                found[f"{owner}.{name}"] = signature(method)
    assert found["HookBase.after_step"] == "self"
    reasons = {
        "CfgNode.merge_from_file": "allow_unsafe is False by default",
        "DetectionCheckpointer.load": "it names the arguments that Detectron2's passes on",
        "GeneralizedRCNN.inference": "boxes given from outside are for masks and keypoints",
        "Backbone.forward": "abstract: it takes what the backbone takes",
    }
    contract(dict(sorted(found.items())), differences=reasons)


def test_members_of_classes_and_modules(contract: Contract) -> None:
    """Under the embedded engine: all but those in ``LEFT_OUT``, none that Detectron2 lacks."""
    owners = {
        name: value
        for name, value in engine_names().items()
        if kind_of(value) in ("class", "module") or "Catalog" in name
    }
    found = {name: set(members(value)) for name, value in owners.items()}
    if d2.ENGINE == "embedded":
        for owner, names in LEFT_OUT.items():
            assert names.isdisjoint(dir(owners[owner])), f"{owner}: listed as left out and there"
            found[owner] |= names
        for owner, names in INHERITED.items():
            assert names <= set(dir(owners[owner])), f"{owner}: not inherited"
            found[owner] |= names
    assert "register_hooks" in found["TrainerBase"]
    contract({name: sorted(names) for name, names in found.items()})
