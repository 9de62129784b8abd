"""A call to a Python function: once, within the budget and the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from moa_nb.chat import Completion
from moa_nb.errors import MoaError, RowError, SetupError
from moa_nb.gateway.attempts import Call, paid_of, worst_of
from moa_nb.gateway.budget import Budget
from moa_nb.gateway.prices import FREE
from moa_nb.gateway.route import no_price
from moa_nb.providers import functions

__all__ = ["ask_function"]


async def ask_function(
    call: Call, deadline: float, clock: Callable[[], float], *, is_known: Callable[[], bool]
) -> Completion:
    """Return what a function answers, with what that took.

    Args:
        call: what is asked, and what it is paid from.
        deadline: the seconds that it may take.
        clock: seconds, never going back.
        is_known: whether the function has answered before, so that one which reports no cost goes on reporting none.

    Raises:
        RowError: it raised, or gave no answer in time.
        BudgetExceeded: what it may take does not fit; it was not called.
        SetupError: it took what nobody could know before.
    """
    budget = call.budget
    if budget is None:
        return await _answered(call, deadline, clock)
    if budget.unit == "dollars" and call.route.price is FREE and not is_known():
        async with budget.alone:
            if not is_known():
                return await _paid(call, budget, deadline, clock, is_known=False)
    return await _paid(call, budget, deadline, clock, is_known=is_known())


async def _paid(
    call: Call, budget: Budget, deadline: float, clock: Callable[[], float], *, is_known: bool
) -> Completion:
    """Return the answer, within the budget.

    Raises:
        MoaError: as ``ask_function`` does.
    """
    is_free = call.route.price is FREE
    if is_free and call.route.reports and budget.unit == "dollars":
        raise SetupError(no_price(call.request.model))  # as another call found out while this one waited
    takes_nothing = is_free and (is_known or budget.unit == "dollars") and budget.unit != "calls"
    call.worst = 0.0 if takes_nothing else worst_of(call, budget)
    if not budget.try_reserve(call.worst, call.priority):
        await budget.reserve(call.worst, call.priority)
    paid: float | None = None
    try:
        completion = await _answered(call, deadline, clock)
        paid = paid_of(budget, completion)
    except BaseException as error:
        if call.attempts:
            call.may_be_billed()
        else:
            paid = 0.0  # it was still waiting for its turn
        if isinstance(error, MoaError):
            error.unreported = call.unreported
        raise
    finally:
        budget.settle(call.worst, paid)
    is_undeclared = is_free and budget.unit == "dollars" and completion.usage is not functions.NO_TOKENS
    if is_undeclared or (paid is not None and paid > call.worst * (1 + 1e-9)):
        raise _surprise(call, budget, paid, is_undeclared=is_undeclared)
    return completion


async def _answered(call: Call, deadline: float, clock: Callable[[], float]) -> Completion:
    route = call.route
    await route.limiter.acquire(call.priority)
    started = clock()
    call.attempts += 1
    try:
        async with asyncio.timeout(deadline):
            completion = await functions.answer(call.request, functions.in_daemon_thread)
    except TimeoutError:
        msg = f"function {functions.of(call.request).name!r} gave no answer within {deadline:g} s"
        raise RowError(msg) from None
    finally:
        route.limiter.release()
    route.reports = route.reports or completion.usage is not functions.NO_TOKENS
    cost = completion.cost
    if cost is None and route.price is not None and route.price is not FREE:
        cost = route.price.cost(completion.usage)
    return replace(completion, seconds=clock() - started, cost=cost)


def _surprise(call: Call, budget: Budget, paid: float | None, *, is_undeclared: bool) -> SetupError:
    """Return the error of a call that took more than was set aside."""
    if is_undeclared:
        error = SetupError(no_price(call.request.model))
    else:
        name, took, aside = functions.of(call.request).name, budget.said(paid or 0), budget.said(call.worst)
        more = "cost= in its @moa.agent" if budget.unit == "dollars" else "max_tokens"
        error = SetupError(f"function {name!r} took {took} for one call, and {aside} was set aside: raise {more}")
    error.unreported, error.attempts = 1, 1
    return error
