"""Values that an axis lists more than once: each would be a cell of its own with the same image.

Knows: which repeats mean something. Does not know: where axes come from.
"""

from __future__ import annotations

from collections.abc import Iterable

from studio.core.sweeps.axis import Axis
from studio.core.sweeps.value_syntax import AxisValue


def find_repeated_values(axis: Axis) -> tuple[AxisValue, ...]:
    """Return the values that stand more than once, each once, in their order.

    Linked axes may repeat a value (three prompts on one seed), and -1 draws another seed each time.
    """
    if axis.group is not None:
        return ()
    seen: set[AxisValue] = set()
    repeated: dict[AxisValue, None] = {}
    for value in axis.parsed_values:
        if value in seen and not _is_drawn(axis, value):
            repeated[value] = None
        seen.add(value)
    return tuple(repeated)


def drop_repeated_values(axis: Axis) -> list[AxisValue]:
    """Return the values of an axis, those that stand more than once only at their first place."""
    repeated = set(find_repeated_values(axis))
    return list(_iterate_once(axis.parsed_values, repeated))


def _iterate_once(values: Iterable[AxisValue], repeated: set[AxisValue]) -> Iterable[AxisValue]:
    passed: set[AxisValue] = set()
    for value in values:
        if value not in passed:
            yield value
        if value in repeated:
            passed.add(value)


def _is_drawn(axis: Axis, value: AxisValue) -> bool:
    return axis.field in ("seed", "variation_seed") and value == -1
