"""Who stands in the book of a limit is known by a name that says which run, and which attempt of which step."""

from __future__ import annotations

import pytest

from knotwork.flow import admission

RUN = "w2345abcd"


@pytest.mark.parametrize(
    ("token", "tries", "attempt", "told"),
    [
        (admission.RUN, 0, "", RUN),
        ("fetch", 0, "fetch", f"{RUN}/fetch"),
        ("fetch", 2, "fetch.2", f"{RUN}/fetch"),
        ("fetch--7", 1, "fetch--7.1", f"{RUN}/fetch--7"),
        ("runner", 0, "runner", f"{RUN}/runner"),
    ],
    ids=["run", "step", "step-again", "item-again", "like-a-run"],
)
def test_the_name_of_a_holder_says_who_it_is(token: str, tries: int, attempt: str, told: str):
    holder = admission.holder(RUN, token, tries)
    assert admission.held_by(holder) == (RUN, attempt)
    assert admission.named(holder) == told
    assert (holder == admission.holder(RUN, admission.RUN)) == (token == admission.RUN)
