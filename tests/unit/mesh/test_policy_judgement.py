"""How does an agent stand to a boundary? Its own word first, then what is forbidden, preferred, allowed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.config.model import Config
from knotwork.mesh import policy as policies
from knotwork.mesh import routing
from knotwork.mesh.directory import Directory
from knotwork.mesh.policy import READY, Policy, Rule
from knotwork.mesh.records import AgentRecord, NodeRecord, encode
from knotwork.sdk.errors import Invalid, Unavailable
from knotwork.sdk.router import Ask, Candidate, Route

WHO = st.frozensets(st.sampled_from(["pilot", "claude", "copilot", "n1/pilot", "n1/*", "n2/*", "codex"]), max_size=3)
RULES = st.builds(Rule, name=st.just("lab"), allow=WHO, prefer=WHO, forbid=WHO, fallback=WHO)
AGENTS = st.tuples(
    st.sampled_from(["n1", "n2"]),
    st.sampled_from(["pilot", "claude"]),
    st.sampled_from(["copilot", "claude-code", "codex"]),
)


def names(agent):
    node, name, executor = agent
    return {name, executor, f"{node}/{name}", f"{node}/*"}


@given(RULES, AGENTS)
def test_every_agent_stands_in_one_way_and_is_told_why(rule, agent):
    standing, why = Policy([rule]).judge("lab", *agent, ())
    assert why
    if names(agent) & rule.forbid:
        assert standing == "forbidden"
    elif names(agent) & rule.prefer:
        assert standing == "preferred"
    elif rule.allow and not names(agent) & (rule.allow | rule.fallback):
        assert standing == "forbidden"
    if standing == "allowed":
        assert not rule.prefer
        assert not rule.fallback


@given(RULES, AGENTS, st.frozensets(st.sampled_from(["lab", "corporate"])))
def test_an_agents_own_word_can_only_forbid(rule, agent, accepts):
    own, free = (Policy([rule]).judge("lab", *agent, word) for word in (accepts, ()))
    if accepts and "lab" not in accepts:
        assert not own.may
    else:
        assert own == free


@given(RULES, st.lists(AGENTS, unique=True))
def test_sifting_keeps_everybody_once_and_loses_nobody(rule, agents):
    candidates = [
        Candidate(node, f"{name}-{executor}", frozenset("x"), executor=executor) for node, name, executor in agents
    ]
    may, refused = Policy([rule]).sift("lab", candidates)
    assert sorted([one.name for one in may] + list(refused)) == sorted(one.name for one in candidates)
    assert {one.standing for one in may} <= {"", "preferred", "fallback"}


@pytest.mark.parametrize(
    ("boundary", "executor", "standing"),
    [
        ("corporate", "copilot", "allowed"),
        ("corporate", "claude-code", "forbidden"),
        ("corporate-adjacent", "copilot", "preferred"),
        ("corporate-adjacent", "claude-code", "fallback"),
        ("personal", "claude-code", "preferred"),
        ("personal", "process", "fallback"),
        ("open-source", "process", "allowed"),
        ("none", "process", "allowed"),
        ("", "process", "allowed"),
        ("unheard-of", "process", "forbidden"),
    ],
)
def test_the_policy_that_is_ready(boundary, executor, standing):
    assert READY.judge(boundary, "n1", "a", executor, ()).standing == standing


def test_a_table_is_laid_over_the_ready_one_key_by_key():
    written = {"corporate": {"paths": ["/srv"]}, "personal": {"prefer": []}, "lab": {}}
    policy = policies.compiled(Config.model_validate({"boundaries": written}).boundaries)
    assert policy.known == ("corporate", "corporate-adjacent", "lab", "open-source", "personal", "none")
    assert not policy.judge("corporate", "n1", "a", "claude-code", ()).may  # a path pattern loosens nothing
    assert policy.judge("personal", "n1", "a", "codex", ()).standing == "allowed"
    assert policy.classes.find("/srv/x").boundary == "corporate"


def test_allowed_ones_come_first_where_others_may_only_step_in():
    policy = Policy([Rule("lab", allow=frozenset({"copilot"}), fallback=frozenset({"codex"}))])
    found = {
        executor: policy.judge("lab", "n1", "a", executor, ()).standing for executor in ("copilot", "codex", "process")
    }
    assert found == {"copilot": "preferred", "codex": "fallback", "process": "forbidden"}


def test_an_unknown_boundary_is_refused_with_the_known_ones():
    with pytest.raises(Invalid, match="there are corporate, corporate-adjacent, open-source, personal, none") as caught:
        READY.admit("personnel")
    assert (caught.value.code, caught.value.hint) == ("policy.unknown_boundary", "Did you mean personal?")
    assert [READY.admit(name) for name in ("", "none", "personal")] == ["none", "none", "personal"]


def test_who_may_only_step_in_is_barred_while_somebody_better_is_free():
    pilot = Candidate("n1", "pilot", frozenset("x"), executor="copilot")
    other = Candidate("n1", "other", frozenset("x"), executor="codex")
    full = Candidate("n1", "pilot", frozenset("x"), executor="copilot", load=1.0)
    assert set(READY.against("corporate-adjacent", [pilot, other])) == {"n1/other"}
    assert not READY.against("corporate-adjacent", [full, other])
    assert not READY.against("corporate-adjacent", [other])
    assert set(READY.against("corporate", [pilot, other])) == {"n1/other"}


class Answers:
    """A router that answers with what it was offered, and remembers it (`slot.Slot`, as far as routing looks)."""

    def __init__(self, answer=None):
        self.id, self.plugin, self.seen, self._answer = "r", self, [], answer

    async def route(self, ask, candidates):
        self.seen.append((ask, list(candidates)))
        return self._answer(candidates) if self._answer else Route(candidates, reason="as they are")


@pytest.fixture
def directory():
    made = Directory(time.monotonic, "n1")
    agents = (AgentRecord("pilot", ("x",), executor="copilot"), AgentRecord("claude", ("x",), executor="claude-code"))
    made.heard("n1", encode(NodeRecord("n1", "u", "i", 0, 10.0, agents=agents)))
    return made


async def test_no_router_is_even_offered_whom_the_policy_forbids(directory):
    router = Answers()
    choice = await routing.decide([router], Ask(capability="x", boundary="corporate"), directory)
    assert [one.name for one in choice.candidates] == ["n1/pilot"]
    assert [one.name for one in router.seen[0][1]] == ["n1/pilot"]
    assert choice.refused == {"n1/claude": "corporate work is only for copilot"}
    assert (choice.router, choice.reason) == ("r", "as they are")


async def test_when_all_are_forbidden_the_error_says_why_and_no_router_is_asked(directory):
    router = Answers()
    policy = Policy([Rule("lab", allow=frozenset({"codex"}))])
    with pytest.raises(Unavailable, match="n1/claude: lab work is only for codex") as caught:
        await routing.decide([router], Ask(capability="x", boundary="lab"), directory, policy)
    assert caught.value.code == "route.no_eligible_agent"
    assert not router.seen


async def test_work_of_no_boundary_is_open_to_all_also_when_it_says_so(directory):
    for boundary in ("", "none"):
        router = Answers()
        choice = await routing.decide([router], Ask(capability="x", boundary=boundary), directory)
        assert len(choice.candidates) == 2
        assert router.seen[0][0].boundary == ""


async def test_an_unknown_boundary_is_refused_before_anything_else(directory):
    with pytest.raises(Invalid) as caught:
        await routing.decide([Answers()], Ask(capability="nobody-does-this", boundary="unheard-of"), directory)
    assert caught.value.code == "policy.unknown_boundary"


async def test_a_router_that_makes_no_sense_of_its_reasons_harms_no_explanation(directory):
    router = Answers(lambda candidates: Route(candidates, refused=7, reason=object()))
    choice = await routing.decide([router], Ask(capability="x"), directory)
    assert choice.refused == {}
    assert choice.reason.startswith("<object")
