"""Plans made by rules, from texts as people write them, and from texts that somebody wrote to do harm."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knotwork.crew import plan
from knotwork.crew.assess import assess
from knotwork.sdk.errors import Invalid, TooLarge

KNOWN = {
    "backend", "frontend", "testing", "database", "documentation", "devops", "writing", "research", "security",
    "data-analysis", "code-review", "translation", "design",
}  # fmt: skip

REALISTIC = [
    (
        "Build a todo app: database schema, REST API, web UI, and tests",
        "[database-schema+rest-api] → [web-ui+tests]",
        "database backend frontend testing",
    ),
    (
        ("# Payment migration\n\nWe move with zero downtime.\n\n## Tasks\n1. Design the new payment schema\n"
        "2. Implement the provider client (depends on 1)\n3. Write a migration script for customers, needs 1\n"
        "4. Add regression tests after 2 and 3\n5. Update the docs\n6. Deploy to production once everything is done\n\n"
        "## Notes\n- talk to Anna\n"),
        ("[design-payment-schema+update-docs] → [provider-client+migration-script] → [regression-tests] → "
        "[deploy-production]"),
        "design backend database testing documentation devops",
    ),
    (
        ("## Backend\nBuild the REST API.\n### Acceptance\n- p99 below 100 ms\n## Frontend\nThe order page. Depends on "
        "Backend.\n## Security review\nReview both once Backend and Frontend are finished."),
        "[backend] → [frontend] → [security-review]",
        "backend frontend security",
    ),
    (
        "Fix the login bug, then add a test for it, then update the changelog.",
        "[fix-login-bug] → [test] → [update-changelog]",
        "backend testing documentation",
    ),
    (
        "Please (1) collect the sales data of 2024, (2) clean it, needs 1, and (3) write a report based on the cleaned data.",
        "[collect-sales-data] → [clean] → [report-based-cleaned]",
        "data-analysis general data-analysis",
    ),
    (
        "- Translate README to German\n- Translate README to French\n- Translate README to Spanish\nAll in parallel.",
        "[translate-readme-german+translate-readme-french+translate-readme-spanish]",
        "translation translation translation",
    ),
    (
        "TODO:\n* [ ] schema for users\n* [ ] login API (needs schema)\n* [x] pick a framework\n* [ ] login page: after login API",
        "[schema-users+pick-framework] → [login-api] → [login-page]",
        "database backend general frontend",
    ),
    ("Write a blog post about NATS.", "[blog-post-about]", "writing"),
    ("Fix the typo in README", "[fix-typo-readme]", "backend"),
    (
        "Phase 1: Research the competitors\nPhase 2: Draft the positioning\nPhase 3: Write the landing page",
        "[research-competitors] → [draft-positioning] → [landing-page]",
        "research writing frontend",
    ),
    (
        "Step 1: dump the data\nStep 2: convert it\nStep 3: load it",
        "[dump-data] → [convert] → [load]",
        "data-analysis general general",
    ),
    (
        "Step 1: dump the data Step 2: convert it, then Step 3: load it.",
        "[dump-data] → [convert] → [load]",
        "data-analysis general general",
    ),
    (
        "1. write the database 2. write the API 3. test it",
        "[database+api] → [test]",
        "database backend testing",
    ),
    (
        "1. Upgrade to Python 2. Then go on\n2. Draft the outline",
        "[upgrade-python-2+draft-outline]",
        "backend writing",
    ),
    (
        "Refactor the storage layer.\n  - split the module\n  - keep the public API\nThen benchmark it.",
        "[split-module+keep-public-api] → [benchmark]",
        "general backend general",
    ),
    (
        ("We need a crawler. It must respect robots.txt. Create the fetcher. Create the parser. Connect both once the "
        "fetcher and the parser are done. Test everything at the end."),
        "[fetcher+parser] → [connect-both] → [test-everything-at]",
        "general general general testing",
    ),
    (
        "1) Extract\n   a) from the CRM\n   b) from the ERP\n2) Transform (after Extract)\n3) Load (after Transform)",
        "[extract] → [transform] → [load]",
        "general general general",
    ),
    (
        "* Set up CI before the tests\n* Write the tests\n* Review the code when the tests are green",
        "[ci] → [tests] → [review-code]",
        "devops testing code-review",
    ),
    ("Acceptance criteria:\n- it builds\n- it runs\nTask: make a CLI for the API", "[cli-api]", "backend"),
    (
        "Implement OAuth2 login, password reset and audit logging; document all three.",
        "[oauth2-login] → [document-three]",
        "backend documentation",
    ),
    (
        ("1. Draft the outline\n2. Write chapter one, after the outline\n3. Write chapter two, after the outline\n"
        "4. Edit both chapters, after 2 and 3\n   Done when: no open comments"),
        "[draft-outline] → [chapter-one+chapter-two] → [edit-both-chapters]",
        "writing writing writing general",
    ),
    ("a. db\nb. api needs a\nc. ui needs b", "[db] → [api] → [ui]", "database backend frontend"),
    (
        ("# Plan\n\n## 1. Data model\n## 2. API\nRequires the data model.\n## 3. UI\nRequires the API.\n## 4. E2E tests\n"
        "Requires all of the above."),
        "[data-model] → [api] → [ui] → [e2e-tests]",
        "data-analysis backend frontend testing",
    ),
    ("```python\n- not an item\n- nor this\n```\nMake this code faster.", "[this-code-faster]", "backend"),
    ("Investigate why the nightly build fails.", "[investigate-why-nightly]", "research"),
    (
        ("- Build the docker image\n- Deploy the docker image after the build of the image\n"
        "- Announce the release when deployment is done\n- Research other registries, independent of the rest"),
        "[docker-image+research-other] → [deploy-docker-image] → [announce-release]",
        "devops devops devops research",
    ),
    (
        "Research three queues. Then write a comparison. Finally, publish it on the wiki.",
        "[research-three-queues] → [comparison] → [publish-wiki]",
        "research writing general",
    ),
    (
        "First set up the server, then migrate the data, and finally switch DNS.",
        "[server] → [migrate-data] → [switch-dns]",
        "backend data-analysis general",
    ),
    (
        "Tasks:\n- Translate the manual\n- Proofread after the translation is ready\n  Acceptance: no typos\nNotes:\n- be nice",
        "[translate-manual] → [proofread]",
        "translation translation",
    ),
    ("日本語のタスク、データベースを作る", "[part-1]", "general"),
    (
        "• Schéma de la base\r\n• Tests d'intégration, after the Schéma\r\n",
        "[schema-de-la] → [tests-d-integration]",
        "general testing",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("task", "order", "capabilities"), REALISTIC, ids=range(len(REALISTIC)))
def test_a_text_becomes_the_plan_that_it_means(task, order, capabilities):
    made = assess(task, KNOWN)
    assert plan.drawn(made.parts) == order
    assert " ".join(part.capability for part in made.parts) == capabilities
    assert plan.flaws(made.parts) == []


def test_every_part_knows_what_belongs_to_it():
    made = assess(REALISTIC[2][0], KNOWN)
    assert made.parts[0].acceptance == ("p99 below 100 ms",)
    assert made.parts[2].needs == ("backend", "frontend")
    assert "Build the REST API." in made.parts[0].instructions
    made = assess(REALISTIC[1][0], KNOWN)
    assert made.parts[5].needs == tuple(part.id for part in made.parts[:5])  # "everything"
    assert not any("Anna" in part.instructions for part in made.parts)
    assert "Nobody has general now" in assess("Dance.", KNOWN).notes[0]
    assert assess("Dance.", KNOWN, default="dancing").parts[0].capability == "dancing"
    assert assess("Nothing of this.", {"general"}).notes == ()


@pytest.mark.parametrize("task", [
    "Build: 1. the db 2. the api after the db 3. docs", "Build a shop: schema, API and tests",
    "1. Build the db\n2. Build the api, which " + "answers very many questions " * 20, "Fix the bug, then add a test for it.",
])  # fmt: skip
def test_no_part_is_told_twice_what_it_is(task):
    for part in assess(task).parts:
        lines = part.instructions.split("\n")
        assert len(lines) == len(set(lines)) and not any(line.endswith("…") for line in lines), part


@pytest.mark.parametrize(
    ("task", "order"),
    [
        ("Build a shop: db and api first, then ui and tests", "[db+api] → [ui+tests]"),
        ("Build a shop: db, api, then ui, and finally tests", "[db+api] → [ui] → [tests]"),
        ("Build a shop:\n- db\n- api\nThen:\n- ui\n- tests", "[db+api] → [ui+tests]"),
        ("Build a shop: schema, API, UI. The API depends on the schema. The UI must wait for the API.", "[schema] → [api] → [ui]"),
        ("1. db\n2. api\n3. ui\n4. tests\n\nDependencies: 3 needs 2, 4 needs 2 and 3.", "[db+api] → [ui] → [tests]"),
        ("1. db\n2. api\n3. ui\n\nDependencies:\n- api: db\n- ui -> api", "[db] → [api] → [ui]"),
        ("1. db\n2. api\n3. ui\n\n## Order\ndb -> api -> ui", "[db] → [api] → [ui]"),
        ("1. one\n2. two\n3. three\n\nThree blocks one. Two must be done before three.", "[two] → [three] → [one]"),
        ("1. db\n2. api\n   Dependencies: 1\n3. docs", "[db+docs] → [api]"),
        ("# db\ncreate it\n# api\nDependencies: db\n# ui\n## Dependencies\nneeds the api", "[db] → [api] → [ui]"),
        ("1. red\n2. green\n\nDependencies:\n- flask 3\n- python", "[red+green]"),
        ("Dependencies:\n- flask 3\n- python\n\nTasks:\n1. red\n2. green", "[red+green]"),
        ("Dependencies:\n- 3 needs 2\n\nTasks:\n1. db\n2. api\n3. ui", "[db+api] → [ui]"),
        ("Order:\ndb -> ui\n\n1. db\n2. api\n3. ui", "[db+api] → [ui]"),
        ("A shop.\n\nOrder:\n1. red\n2. green\n3. blue", "[red] → [green] → [blue]"),
        ("# A shop\n\n## Order\n- red\n- green", "[red] → [green]"),
        ("## Dependencies\n1. red\n2. green", "[red+green]"),
        ("Dependencies: none\n1. red\n2. green", "[red+green]"),
        ("## Phase 1\n- red\n- green\n## Phase 2\n- blue", "[phase-1] → [phase-2]"),
        ("Fix the bug: it fails on empty input and unicode. Add a test.", "[fix-bug+test]"),
    ],
)  # fmt: skip
def test_what_stands_beside_the_items_says_their_order(task: str, order: str):
    assert plan.drawn(assess(task, KNOWN).parts) == order


def test_complexity_grows_and_says_why():
    small, middle, large = (assess(text, KNOWN).complexity for text in ("Fix it", REALISTIC[0][0], REALISTIC[1][0]))
    assert small.score < middle.score < large.score
    assert (small.level, small.split, large.split) == ("trivial", False, True)
    assert any("zero downtime" in reason for reason in large.reasons)
    assert any("4 parts" in reason for reason in middle.reasons)


def test_a_circle_is_cut_and_told():
    made = assess("- red needs green\n- green needs blue\n- blue needs red", KNOWN)
    assert "A circle" in made.notes[-1]
    assert plan.cycle({part.id: part.needs for part in made.parts}) == []
    assert sum(len(part.needs) for part in made.parts) == 2


def test_a_circle_of_letters_is_told_too():
    made = assess("1. A needs B\n2. B needs A", KNOWN)
    assert "A circle" in made.notes[-1]
    assert sum(len(part.needs) for part in made.parts) == 1


@pytest.mark.parametrize(
    ("task", "order"),
    [
        ("Do not write tests. Without a UI. Build only the API.", "[only-api]"),
        ("- Build the API\n- Do not write tests\n- Build the UI in parallel", "[api+ui-parallel]"),
        ("Build the API. Never deploy it. Build the UI in parallel.", "[api+ui-parallel]"),
        ("- Don't touch the old code\n- Avoid new tables", "[part-1]"),
    ],
)
def test_what_is_not_to_be_done_is_no_part(task: str, order: str):
    made = assess(task, KNOWN)
    assert plan.drawn(made.parts) == order
    told = " ".join(part.instructions for part in made.parts)
    assert all(word in told for word in task.replace(".", "").replace("- ", "").split())  # and somebody is told


@pytest.mark.parametrize(
    "last",
    ["Write tests for both", "write tests for both of them", "Write tests for all of them", "Check each of them"],
)
def test_both_and_all_of_them_are_the_parts_before(last: str):
    for task in (f"Build the API. Build the UI. {last}.", f"- Build the API\n- Build the UI\n- {last}"):
        assert assess(task, KNOWN).parts[-1].needs == ("api", "ui")


def test_many_items_become_as_many_parts_as_may_be():
    made = assess("\n".join(f"- thing {n}" for n in range(500)), KNOWN, parts_max=1000)
    assert len(made.parts) == plan.PARTS_MAX
    assert "thing 499" in made.parts[-1].instructions
    assert "500 parts were found" in made.notes[0]
    assert len(assess("- a\n- b\n- c", KNOWN, parts_max=1).parts) == 1


def test_more_than_a_part_may_need_is_cut_without_losing_the_order():
    text = "\n".join(f"Step {n}: do {n}" for n in range(1, 60)) + "\nStep 60: check, when everything is done"
    made = assess(text, KNOWN, parts_max=100)
    assert len(made.parts[-1].needs) == plan.NEEDS_MAX
    assert plan.groups(made.parts)[-1] == [made.parts[-1].id]


HOSTILE = {
    "everything": "\n".join(f"- item {n} with a name that is long, when everything is done" for n in range(1_500)),
    "quotes": "- a " + '"\\' * 15_000 + "\n- " + '"' * 30_000,
    "long line": "- " + "a " * 60_000,
    "words of order": "after " * 20_000,
    "nested words": ("once after when " * 5_000) + ", build",
    "many lines": "- x\n" * 20_000,
    "needs of needs": "\n".join(
        f"- item{n} needs item{n + 1} and item{n - 1}, item{n * 7 % 200}" for n in range(2_000)
    ),
    "blanks": " " * 100_000 + "x",
    "hashes": "#" * 50_000 + " x",
    "stars": "**" * 50_000 + "x",
    "control characters": "\x00\x1b[31m- a\u202e\n- b\u2066\ud7ff\n\x07",
    "templates": "- {{ input.secret }}\n- ${HOME} `steps.a.output` '; DROP TABLE\n- ../../etc/passwd",
    "enumeration": "Build: " + ", ".join(["x"] * 150),
    "numbers": " ".join(f"({n}) do {n}" for n in range(1, 99)),
    "statements": "- a\n- b\n" + "a waits for b, " * 4_000 + "a needs b. " * 2_000 + "Order: " + "a -> b " * 4_000,
    "fences": "```\n" * 10_001 + "x",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_written_to_do_harm_becomes_a_plan_in_time(name):
    began_s = time.process_time()
    made = assess(HOSTILE[name], KNOWN, parts_max=200)
    assert time.process_time() - began_s < 30  # a pattern that explodes would take for ever
    assert plan.flaws(made.parts) == []
    for part in made.parts:
        assert not any(ord(one) < 32 and one not in "\n\t" for one in part.title + part.instructions)
        assert "\u202e" not in part.title + part.instructions


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\x01", "…!?", "\u202e\u2066"])
def test_a_text_that_says_nothing_is_refused(text):
    with pytest.raises(Invalid) as caught:
        assess(text)
    assert caught.value.code == "crew.no_task"


def test_a_text_that_is_too_large_is_refused():
    with pytest.raises(TooLarge) as caught:
        assess("ä" * 70_000)
    assert caught.value.code == "crew.task_too_large"
    with pytest.raises(TooLarge):
        assess("x" + "\x00" * 40_000)  # as JSON it is six times that


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=2000))
def test_any_text_becomes_a_plan_or_is_refused_with_a_word(text):
    try:
        made = assess(text, KNOWN)
    except Invalid as error:
        assert error.code == "crew.no_task"
    else:
        assert plan.flaws(made.parts) == []
        assert made == assess(text, KNOWN)


LINE = st.sampled_from(
    [
        "- a after 2",
        "1. b",
        "2. c needs b",
        "# H",
        "## T",
        "Acceptance:",
        "then d",
        "Step 3: e",
        "  - f",
        "finally g",
        "",
        "```",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=40))
def test_whatever_is_put_together_can_be_carried_out(lines):
    text = "\n".join(["Do x.", *lines])
    made = assess(text, KNOWN, parts_max=30)
    assert plan.flaws(made.parts) == []
    assert sorted(name for group in plan.groups(made.parts) for name in group) == sorted(part.id for part in made.parts)
