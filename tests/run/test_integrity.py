import itertools

import cloudpickle
import numpy as np
import pytest

from mce_notebook.run.integrity import copier, data, fingerprint, steady


class Box:
    def __init__(self, value):
        self.value = value


class Sealed:
    def __reduce__(self):
        raise TypeError("sealed")


CHANGES = {
    "array": (lambda: np.zeros(10), lambda a: a.__setitem__(3, 1e-300)),
    "strided": (lambda: np.zeros((4, 4)).T[::2], lambda a: a.__setitem__((1, 1), 1)),
    "objects": (lambda: np.array([[1], [2, 3]], dtype=object), lambda a: a[0].append(1)),
    "list": (lambda: [[1, 2], {3: 4}], lambda a: a[1].update({3: 5})),
    "set": (lambda: {"a", "b"}, lambda a: a.discard("b")),
    "instance": (lambda: Box([1]), lambda a: a.value.append(2)),
    "generator": (lambda: np.random.default_rng(1), lambda a: a.random()),
    "large": (lambda: np.zeros(2_000_000), lambda a: a.__setitem__(-1, 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_and_nothing_else(name):
    make, change = CHANGES[name]
    value = make()
    before = steady(value)
    assert before is not None
    assert fingerprint(value)[0] == before
    change(value)
    assert fingerprint(value)[0] != before


def test_what_has_no_state_to_see():
    assert fingerprint(Sealed()) is None
    assert steady(Sealed()) is None
    counter = itertools.count()

    class Restless:
        def __getstate__(self):
            return {"n": next(counter)}

    assert fingerprint(Restless()) is not None
    assert steady(Restless()) is None


def test_read_only_buffers_count_by_size():
    value = np.arange(1000.0)
    value.flags.writeable = False
    assert fingerprint(value)[1] < 1000


def test_copies_are_new_each_time():
    copy = copier(([1], np.zeros(2)))
    first, second = copy(), copy()
    first[0].append(2)
    first[1][0] = 5
    assert second[0] == [1]
    assert second[1][0] == 0
    assert copier((Sealed(),)) is None


def test_functions_classes_and_modules_hold_no_state_of_points():
    namespace = {"f": len, "g": lambda: 0, "np": np, "Box": Box, "__name__": "x", "A": [1], "n": 3, "left": [2]}
    assert data(namespace, without=("left",)) == {"A": [1], "n": 3}
    assert fingerprint(namespace["g"]) is not None
    assert cloudpickle.loads(cloudpickle.dumps(namespace["g"]))() == 0
