"""FACTS forgets only what HISTORY has; no run that is over is done again, whoever owns its shard, crashes, lags or races."""

from __future__ import annotations

import pytest
from tests.unit.flow.shard_world import Node, World, run_of, what

from knotwork.flow import facts, forgetting
from knotwork.flow.forgetting import Over
from knotwork.flow.history import is_whole
from knotwork.flow.journal import Live, Shard


def simulate(seed: int, *, lossy: bool) -> World:
    world = World(seed, lossy=lossy)
    world.run(400)
    world.calm()
    for run, all_of in world.every.items():
        if what(all_of[-1]) == "ended":
            assert world.history[run] == all_of
            assert all(run_of(one) != run for one in world.facts), "FACTS forgets it in the end"
        else:
            assert [one for one in world.facts if run_of(one) == run] == all_of
    return world


@pytest.mark.parametrize("lossy", [False, True])
def test_nothing_is_lost_and_nothing_done_again(lossy):
    purged = sum(simulate(seed, lossy=lossy).purged > 5 for seed in range(300))
    assert purged > 200, "most of these worlds purge something"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lossy", [False, True])
def test_nothing_is_lost_in_many_worlds(lossy):
    for seed in range(1000, 11_000):
        simulate(seed, lossy=lossy)


@pytest.mark.parametrize("while_it_reads", [False, True])
def test_what_was_told_with_a_gap_is_read_again_before_it_is_kept(while_it_reads):
    world = World(1, lossy=False)
    node, run = world.nodes[0], next(world.names)
    node.own()
    (load,) = node.work
    for _ in range(1 if while_it_reads else 20):  # one: it has read all there is, and is not ready yet
        next(load, None)
    world.store(run, "start")
    world.store(run, "outcome", "1")
    node.telling.pop()  # nobody tells of it
    world.doubtful.append(node)
    world.tick()
    world.store(run, "ended")
    while node.telling:
        node.hear()
    list(load)
    (over,) = node.over.values()
    assert not is_whole(over.found)
    list(node.keep(over))
    assert world.history[run] == world.every[run]


def test_this_world_finds_a_new_owner_that_trusts_what_it_read(monkeypatch):
    """Without a look at HISTORY a run is done again of which a former owner purged the rest: the world would show it."""
    monkeypatch.setattr(Node, "leave_past", lambda *_: iter(()))
    with pytest.raises(AssertionError, match="done again"):
        for seed in range(300):
            simulate(seed, lossy=False)


def test_this_world_finds_a_purge_above_what_goes_on(monkeypatch):
    monkeypatch.setattr(forgetting, "floor", lambda shard, _: shard.place + 1 if shard is not None else 0)
    with pytest.raises(AssertionError, match="lost"):
        for seed in range(300):
            simulate(seed, lossy=False)


def test_this_world_finds_a_purge_of_what_is_not_kept_yet(monkeypatch):
    due = forgetting.due

    def hasty(over, floors, now_s):
        return due([Over(one.id, one.first, one.last, [], kept_s=1.0) for one in over], floors, now_s)

    monkeypatch.setattr(forgetting, "due", hasty)
    monkeypatch.setattr(forgetting, "stands", lambda *_: True)
    with pytest.raises(AssertionError, match="lost"):
        for seed in range(300):
            simulate(seed, lossy=False)


def names(count: int) -> list[str]:
    return [name for number in range(400) if facts.shard(name := f"w{number:022x}") == "w0"][:count]


def over(name: str, first: int, last: int, kept_s: float = 100.0) -> Over:
    return Over(name, first, last, [], kept_s=kept_s)


def test_of_a_shard_all_goes_below_the_first_run_that_is_not_over_and_the_rest_one_by_one():
    a, b, c, d = names(4)
    found = forgetting.due([over(a, 1, 4), over(b, 5, 9), over(c, 8, 20)], lambda _: 7, 101.0)
    assert [(one.pattern, one.below, one.gone) for one in found] == [("run.w0.>", 7, (a,))]
    found = forgetting.due([over(a, 1, 4), over(b, 5, 9), over(c, 8, 20)], lambda _: 7, 103.0)
    assert [(one.run, one.below) for one in found] == [("", 7), (b, 10), (c, 21)]
    assert forgetting.due([over(a, 1, 4), over(d, 3, 6, 0.0)], lambda _: 7, 101.0) == []
    assert forgetting.due([over(a, 1, 4), over(b, 5, 9)], lambda _: 0, 200.0) == [], "it is not ours"
    many = forgetting.due([over(name, 9, 9) for name in names(25)], lambda _: 7, 103.0)
    assert len(many) == forgetting.LATE_AT_ONCE


def test_what_was_due_is_not_any_more_when_somebody_else_owns_it_or_a_run_is_read_anew():
    a, b = names(2)
    whole, late = forgetting.due([over(a, 1, 4), over(b, 5, 9)], lambda _: 7, 103.0)
    assert forgetting.stands(whole, [over(a, 1, 4)], lambda _: 9)
    assert not forgetting.stands(whole, [over(a, 1, 4)], lambda _: 6)
    assert not forgetting.stands(whole, [over(b, 5, 9, 0.0)], lambda _: 9), "it ended, and is not kept yet"
    assert forgetting.stands(late, [], lambda _: 1)
    assert not any(forgetting.stands(one, [], lambda _: 0) for one in (whole, late))


def test_nothing_is_known_of_a_shard_while_it_or_a_run_of_it_is_read():
    (name,) = names(1)
    shard = Shard("w0", place=9)
    assert (forgetting.floor(None, 0.0), forgetting.floor(shard, 0.0)) == (0, 0)
    shard.ready = True
    assert forgetting.floor(shard, 0.0) == 10
    stray = shard.runs[name] = Live(name, shard, replaying=False, first=3, heard_s=100.0)
    assert (forgetting.floor(shard, 100.0), forgetting.floor(shard, 100.0 + 2 * forgetting.STRAY_S)) == (3, 10)
    stray.left = True
    assert forgetting.floor(shard, 100.0 + 2 * forgetting.STRAY_S) == 3
    stray.told = []
    assert forgetting.floor(shard, 100.0) == 0
