"""Which jobs come up again and again? Prompts that a person picks in their client (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from knotwork.sdk.errors import Invalid, NotFound

VALUE_MAX_CHARS = 16_384


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: its text has `{argument}` where each argument goes; every one of them is needed."""

    name: str
    title: str
    description: str
    text: str
    arguments: tuple[tuple[str, str], ...] = ()

    def listed(self) -> dict[str, Any]:
        """Return it as `prompts/list` shows it."""
        return {
            "name": self.name, "title": self.title, "description": self.description,
            "arguments": [{"name": name, "description": about, "required": True} for name, about in self.arguments],
        }  # fmt: skip


PROMPTS: tuple[Prompt, ...] = (
    Prompt(
        "join", "Join the team", "Say who you are and see what the others do.",
        "Join the other agents of this project with the Knotwork tools: call recall_context, then register_agent with "
        "what you can do (toolsets lists it, set talk), then discover_agents, then read_messages of the channels roadmap and parallel-work. Tell me "
        "in a few lines who is there, what they work on, and what you suggest to do.",
    ),
    Prompt(
        "work", "Take work", "Claim work of a capability and do it.",
        "Take work of the capability {capability} with claim_work, one piece after the other, and do each as well as "
        "you can. Report what takes long with report_progress (toolset work). End each with complete_work and a result that says what "
        "you did; when you cannot do one, give `error` and why. Stop when there is none left, and tell me what was done.",
        (("capability", "what the work needs"),),
    ),
    Prompt(
        "hand-over", "Hand over a task", "Give a task to whoever fits best, and follow it.",
        "Have this done by another agent: {task}\n\nFind who fits with discover_agents or list_agents, write a task "
        "that needs no further questions, give it with assign_work, and follow it with await_work (toolset work, as "
        "list_agents). Look at the result critically before you tell me of it.",
        (("task", "what is to be done"),),
    ),
    Prompt(
        "split", "Split a big job", "Have sub-agents do the parts of a big job.",
        "Split this job among sub-agents: {task}\n\nUse assess_task and show me the plan before anything is started. "
        "When I agree, use spawn_subagents, follow with get_orchestration_state, and put the parts together "
        "with synthesize_results. (List these tools with toolsets, set crew.)",
        (("task", "the whole job"),),
    ),
    Prompt(
        "wrap-up", "Wrap up", "Leave everything so that the next session can go on.",
        "We stop here. Remember with remember_task what is unfinished and where to go on, and with remember_learning "
        "what was learned; what is worth more than a day keep with commit_insight, and then share with share_learning "
        "what helps the team. (List these tools with toolsets, set memory.) End or give back all work that you claimed. "
        "Tell the others in parallel-work in one message what was done.",
    ),
)  # fmt: skip


def get(name: Any, arguments: Any) -> dict[str, Any]:
    """Return a prompt as `prompts/get` answers it; raises `NotFound` (`mcp.no_prompt`), `Invalid` (`mcp.bad_prompt`)."""
    prompt = next((one for one in PROMPTS if one.name == name), None)
    if prompt is None:
        raise NotFound(
            f"There is no prompt {name[:64]!r}." if isinstance(name, str) else "`name` is needed: which prompt.",
            code="mcp.no_prompt",
            hint=f"There are: {', '.join(one.name for one in PROMPTS)}.",
        )  # fmt: skip
    given = arguments if isinstance(arguments, dict) else {}
    missing = [key for key, _ in prompt.arguments if not isinstance(given.get(key), str) or not given[key].strip()]
    if missing or any(len(str(value)) > VALUE_MAX_CHARS for value in given.values()):
        raise Invalid(
            f"The prompt {prompt.name} needs: {', '.join(key for key, _ in prompt.arguments)}.", code="mcp.bad_prompt",
            hint=f"Each is a text of {VALUE_MAX_CHARS} characters at most.",
        )  # fmt: skip
    text = prompt.text
    for key, _ in prompt.arguments:
        text = text.replace(f"{{{key}}}", given[key])
    return {
        "description": prompt.description,
        "messages": [{"role": "user", "content": {"type": "text", "text": text}}],
    }
