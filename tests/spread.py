"""The tests in several processes at once, with one result as if all had run here.

Most of them wait for processes that they start.  Those of one class run one after
the other, unless the class is marked `apart` (see `helpers`): those begin first, each by
itself.  Those marked `alone` run here when all others are done.
MMAPIPC_TEST_JOBS says in how many processes; 1 is this one.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple
from unittest import mock

JOBS = int(os.environ.get("MMAPIPC_TEST_JOBS") or min(8, 2 + (os.cpu_count() or 1)))

Told = list[tuple[Any, ...]]  # what a result was told: the method, the test's name, and the rest


def each(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The tests in the suite."""
    for test in suite:
        yield from each(test) if isinstance(test, unittest.TestSuite) else (test,)


def is_for_others(test: unittest.TestCase) -> bool:
    """Whether the test may run in another process; what could not be loaded is not ours, and says so here."""
    alone = getattr(test, "alone", False) or hasattr(getattr(test, test._testMethodName), "alone")
    return type(test).__module__.startswith(f"{__package__}.") and not alone


def is_apart(test: unittest.TestCase) -> bool:
    """Whether the test need not run in one process with the others of its class."""
    return getattr(test, "apart", False)


class Spread(unittest.TestSuite):
    """A suite whose tests other processes run."""

    def run(self, result: Any, debug: bool = False) -> Any:
        tests = {test.id(): test for test in each(self) if is_for_others(test)}
        parts: dict[object, list[str]] = {}
        for name, test in sorted(tests.items(), key=lambda item: not is_apart(item[1])):
            parts.setdefault(name if is_apart(test) else type(test), []).append(name)
        options = {name: getattr(result, name, False) for name in ("failfast", "buffer", "tb_locals")}
        # What the others print is in what they say.
        unbuffered = mock.patch.object(result, "buffer", False)
        with unbuffered, ProcessPoolExecutor(JOBS, multiprocessing.get_context("spawn")) as pool:
            try:
                for done in as_completed(
                    [pool.submit(run_there, names, options) for names in parts.values()]
                ):
                    for method, name, *rest in done.result():
                        tell(result, method, tests.get(name) or Named(name), *rest)
                    if result.shouldStop:
                        break
            finally:
                pool.shutdown(cancel_futures=True)
        return unittest.TestSuite(test for test in each(self) if not is_for_others(test)).run(result)


class Named:
    """What stands here for a subtest, or for what a class has in common, of another process."""

    failureException = AssertionError

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return self._name

    id = __str__

    def shortDescription(self) -> None:
        """It has none."""


class Failure(NamedTuple):
    """An exception, as it is sent from one process to another."""

    is_error: bool
    text: str

    def as_raised(self) -> tuple[Any, Any, None]:
        kind = Exception if self.is_error else AssertionError
        return kind, kind(f"in another process\n{self.text}"), None


def tell(result: Any, method: str, test: Any, *rest: Any) -> None:
    """Tell the result what another was told."""
    getattr(result, method)(test, *(each.as_raised() if isinstance(each, Failure) else each for each in rest))


class Teller(unittest.TestResult):
    """Remembers what it is told, so that another result can be told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Told = []


def remembering(method: str) -> Callable[..., None]:
    def remember(self: Teller, test: Any, *rest: Any) -> None:
        getattr(super(Teller, self), method)(test, *rest)
        told: list[Any] = []
        for value in rest:
            if isinstance(value, tuple):
                is_failure = issubclass(value[0], test.failureException or ())
                value = Failure(not is_failure, self._exc_info_to_string(value, test))
            told.append(Named(str(value)) if isinstance(value, unittest.TestCase) else value)
        self.told.append((method, test.id(), *told))

    return remember


for _method in (
    *("startTest", "stopTest", "addDuration", "addSuccess", "addFailure", "addError", "addSubTest"),
    *("addSkip", "addExpectedFailure", "addUnexpectedSuccess"),
):
    if hasattr(unittest.TestResult, _method):
        setattr(Teller, _method, remembering(_method))


def run_there(names: list[str], options: dict[str, bool]) -> Told:
    """Run these tests in this process, one of the others."""
    teller = Teller()
    vars(teller).update(options)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("default")  # as `unittest` does
        try:
            unittest.defaultTestLoader.loadTestsFromNames(names).run(teller)
        except KeyboardInterrupt:
            os._exit(130)  # or it would run what comes next
    return teller.told
