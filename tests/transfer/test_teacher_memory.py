"""What training found is remembered by the content of all arguments."""

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from sk_aft.transfer._teacher_memory import _results, forget_teachers, remembered

MEGABYTE = 1 << 20
calls = []


@pytest.fixture(autouse=True)
def empty():
    forget_teachers()
    calls.clear()
    yield
    forget_teachers()


def double(*arguments):
    calls.append(arguments)
    return 2 * arguments[0]


def zeros(n_bytes, number):
    calls.append(number)
    return np.zeros(n_bytes, np.uint8)


def warn(value):
    calls.append(value)
    warnings.warn("the scale is large", UserWarning, stacklevel=2)
    return value


def keep(value):
    return value


def fail_once(value):
    calls.append(value)
    if len(calls) == 1:
        raise RuntimeError("interrupted")
    return value


def test_equal_arguments_are_computed_once():
    first = remembered(double, np.arange(6.0).reshape(2, 3), ["a", "b"], None, True)
    again = remembered(double, np.arange(6.0).reshape(2, 3), ["a", "b"], None, True)
    assert len(calls) == 1
    assert again.dtype == first.dtype
    np.testing.assert_array_equal(again, first)


def test_every_difference_of_content_counts():
    numbers = np.arange(6, dtype=np.float64)
    different = [
        (numbers,),
        (numbers + 1e-12,),
        (numbers.astype(np.float32),),
        (numbers.reshape(2, 3),),
        (np.asfortranarray(numbers.reshape(2, 3)),),
        (numbers, numbers),
        (numbers, None),
        (numbers, 1),
        (numbers, 1.0),
        (numbers, True),
        (numbers, "1"),
        (numbers, "1", ""),
        (numbers, ["1", ""]),
        (numbers, ["ab", "c"]),
        (numbers, ["a", "bc"]),
        (numbers, [["a"], "bc"]),
        (numbers, ["a", ["bc"]]),
        (numbers, "\ud800"),
        (numbers, [(numbers, numbers)]),
        (numbers, [(numbers,), (numbers,)]),
    ]
    for arguments in different:
        remembered(double, *arguments)
    assert len(calls) == len(different)


def test_functions_do_not_share_results():
    assert remembered(double, 3) == 6
    assert remembered(keep, 3) == 3


def test_nobody_can_change_what_is_remembered():
    first = remembered(double, np.ones(3))
    first[:] = 7
    second = remembered(double, np.ones(3))
    np.testing.assert_array_equal(second, 2)
    with pytest.raises(ValueError, match="read-only"):
        second[:] = 7


def test_columns_in_another_layout_come_back_in_it():
    of_columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    remembered(double, of_columns)
    again = remembered(double, of_columns)
    assert again.flags.f_contiguous
    assert not again.flags.c_contiguous


def test_the_latest_results_are_kept():
    for number in range(100):
        remembered(double, number)
    remembered(double, 99)
    remembered(double, 40)
    assert len(calls) == 100
    remembered(double, 0)
    assert len(calls) == 101
    remembered(double, 40)  # was used after those that were removed
    assert len(calls) == 101


def test_memory_is_bounded():
    for number in range(10):
        remembered(zeros, 15 * MEGABYTE, number)
    assert sum(result.n_bytes for result in _results.values()) <= 64 * MEGABYTE
    remembered(zeros, 15 * MEGABYTE, 9)
    assert len(calls) == 10


def test_a_large_result_does_not_displace_the_others():
    remembered(double, 1)
    for _ in range(2):
        remembered(zeros, 20 * MEGABYTE, 0)
    remembered(double, 1)
    assert calls == [(1,), 0, 0]


def test_an_error_is_not_remembered():
    with pytest.raises(RuntimeError, match="interrupted"):
        remembered(fail_once, 5)
    assert remembered(fail_once, 5) == 5
    assert remembered(fail_once, 5) == 5
    assert len(calls) == 2


def test_a_warning_is_given_each_time():
    show = warnings.showwarning
    for _ in range(2):
        with pytest.warns(UserWarning, match="the scale is large"):
            assert remembered(warn, 5) == 5
    assert len(calls) == 2
    assert warnings.showwarning is show


def test_a_warning_that_the_user_ignores_is_no_reason_to_compute_again():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            remembered(warn, 5)
    assert len(calls) == 1


def test_a_warning_of_another_thread_is_no_reason_to_compute_again():
    begun, warned = threading.Event(), threading.Event()

    def wait(value):
        calls.append(value)
        begun.set()
        assert warned.wait(10)
        return value

    thread = threading.Thread(target=remembered, args=(wait, 5))
    thread.start()
    assert begun.wait(10)
    with pytest.warns(UserWarning, match="the scale is large"):
        remembered(warn, 1)
    warned.set()
    thread.join()
    assert remembered(wait, 5) == 5
    assert calls == [5, 1]


def test_threads_get_equal_results():
    found = []

    def use():
        for number in range(200):
            found.append(remembered(double, np.full(50, number % 20)).sum() == 100 * (number % 20))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 800
    assert all(found)


def test_an_object_that_has_no_content_is_an_error():
    with pytest.raises(TypeError, match="A dict cannot be part of a key"):
        remembered(double, {})
    with pytest.raises(TypeError, match="A ndarray cannot be part of a key"):
        remembered(double, np.array(["a", None], dtype=object))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_begins_with_nothing():
    code = """
import os
from sk_aft.transfer import _teacher_memory as _memory
def double(value):
    return 2 * value
_memory.remembered(double, 3)
_memory._lock.acquire()  # as another thread may hold it
child = os.fork()
if child == 0:
    is_empty = not _memory._results
    os._exit(0 if is_empty and _memory.remembered(double, 4) == 8 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(_memory._results) == 1
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
