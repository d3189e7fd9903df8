"""What an earlier fit learned: kept by training that goes on, dropped by one that starts anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sk_aft._net._student_net import StudentNet

# What is built once: training that goes on keeps it.
_BUILT_ONCE = ("module", "preprocessor", "transfer")


def forget(net: StudentNet) -> None:
    """Drop what an earlier fit learned, so that nothing of it survives into this one."""
    parameters = net.get_params(deep=False)
    learned = [
        name
        for name in vars(net)
        if name.endswith("_") and not name.startswith("_") and name not in parameters
    ]
    for name in learned:
        delattr(net, name)
    for name in ("_modules", "_criteria", "_optimizers"):
        net.__dict__.pop(name, None)


def check_what_is_kept(net: StudentNet) -> None:
    """Raise if a parameter of what is built already is not what it was built with."""
    parameters = {
        name: value
        for name, value in net.get_params().items()
        if name.partition("__")[0] in _BUILT_ONCE
    }
    # A pickle holds what was built and no longer what with.
    former = net._began_with or parameters
    for name in sorted({*former, *parameters}):
        part = name.partition("__")[0]
        if hasattr(net, f"{part}_") and not _are_same(former.get(name), parameters.get(name)):
            raise ValueError(
                f"{name} differs from what the training began with, and training that goes on "
                f"keeps its {part}: set {name} back, or start anew with fit and "
                "warm_start=False."
            )
    net._began_with = parameters


def go_on(net: StudentNet) -> None:
    """Initialise what a training that goes on does not keep."""
    net._initialize_callbacks()
    net._initialize_criterion()
    former: Any = vars(net).get("optimizer_")
    former_precision = vars(net).get("_mixed_precision")
    net._initialize_optimizer()
    for group in net.optimizer_.param_groups:
        group.setdefault("initial_lr", group["lr"])  # schedulers that go on ask for it
    if net._is_incremental and _are_alike(former, net.optimizer_):
        net.optimizer_.state = former.state
        if former_precision is not None:
            net._mixed_precision.keep(former_precision)


def _are_alike(one: Any, other: Any) -> bool:
    """Whether two optimizers differ in their learning rates at most."""
    if type(one) is not type(other):
        return False
    names = {*one.defaults, *other.defaults} - {"lr"}
    return all(one.defaults.get(name) == other.defaults.get(name) for name in names)


def _are_same(one: Any, other: Any) -> bool:
    return one is other or np.array_equal(one, other)
