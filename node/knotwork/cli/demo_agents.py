"""What does it look like when AI agents meet? They come in by `knotwork mcp`, as Claude Code and others do; one is killed."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.bus import child
from knotwork.sdk.errors import Failed

if TYPE_CHECKING:
    from knotwork.cli.story import Story

REVISION = "2025-11-25"
LEAVE_S = 10.0


class _Agent:
    """A scripted agent: a client of a bridge of its own, as an AI tool is."""

    def __init__(self, data_dir: Path, name: str, capability: str) -> None:
        self._process = subprocess.Popen(
            [*child.program(), "mcp", "--data-dir", str(data_dir), "--session", name, "--toolset", "all"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=child.self_env({"XDG_STATE_HOME": str(data_dir / "state")}),  # its locks go with the demo
        )  # fmt: skip
        self._count = 0
        self._ask("initialize", protocolVersion=REVISION, capabilities={}, clientInfo={"name": name, "version": "1"})
        self("set_handle", handle=name)
        self.registered = self("register_agent", agentType="demo", capabilities=[capability])

    def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; raises `Failed` with what it says when it cannot."""
        answer = self._ask("tools/call", name=tool, arguments=arguments)
        if answer.get("isError"):
            raise Failed(f"{tool}: {answer['content'][0]['text']}", code="demo.failed")
        said: dict[str, Any] = answer["structuredContent"]
        return said

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        told = {"jsonrpc": "2.0", "id": self._count, "method": method, "params": params}
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self._count:
                if "result" not in answer:
                    raise Failed(f"{method}: {answer['error']['message']}", code="demo.failed")
                found: dict[str, Any] = answer["result"]
                return found
        raise Failed("An agent's bridge ended by itself.", code="demo.failed")

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait(LEAVE_S)

    def leave(self) -> None:
        """Go, as a client does that is closed."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        self._process.kill()
        self._process.wait()


def play(story: Story, alpha: Path, beta: Path, stack: ExitStack) -> None:
    """Let agents meet at two nodes, whose data folders these are."""

    def come_in(data_dir: Path, name: str, capability: str) -> _Agent:
        made = _Agent(data_dir, name, capability)
        stack.callback(made.leave)
        return made

    story.head("AI agents come in by MCP: they meet, talk, remember, and finish what another could not")
    ann = story.step("ann comes in at alpha", lambda: come_in(alpha, "ann", "draft"), _who)
    bob = story.step("bob comes in at beta", lambda: come_in(beta, "bob", "review"), _who)
    story.step(
        "ann says something in a channel",
        lambda: ann("send_message", channel="roadmap", message="I draft, who reviews?"),
        _id,
    )
    story.step("bob reads it", lambda: bob("read_messages", channel="roadmap"), _last)
    offer = {"taskId": "draft-1", "description": "review the draft", "requiredCapability": "review"}
    work = story.step("ann offers work", lambda: ann("broadcast_work_offer", **offer), lambda said: str(said["status"]))
    story.step("bob claims it", lambda: bob("claim_work", capability="review", timeout=20_000), _claimed)
    story.step("kill -9 bob, in the middle of it", bob.kill, lambda _: "dead")
    carl = story.step("carl comes in at alpha", lambda: come_in(alpha, "carl", "review"), _who)
    claimed = story.step("carl claims what bob held", lambda: _until_claimed(carl, work["work_id"]), _claimed)
    done = {"work_id": claimed["work_id"], "result": "looks good"}
    story.step("carl completes it", lambda: carl("complete_work", **done), lambda said: str(said["status"]))
    story.step(
        "ann awaits it", lambda: ann("await_work", work_id=work["work_id"]), lambda said: json.dumps(said["result"])
    )
    fact = "drafts are reviewed on Fridays"
    story.step(
        "carl remembers something for the team",
        lambda: carl("remember", content=fact, scope="team", category="decisions"),
        lambda _: "kept",
    )
    story.step(
        "ann recalls it",
        lambda: ann("recall_context", search="drafts"),
        lambda said: str(said["summary"]).splitlines()[-1],
    )
    for agent in (ann, carl):
        agent.leave()


def _until_claimed(agent: _Agent, work: str) -> dict[str, Any]:
    """Claim until it is that work; it comes back some seconds after its agent was lost."""
    for _ in range(3):
        said = agent("claim_work", capability="review", timeout=20_000)
        if said.get("work_id") == work:
            return said
    raise Failed("What bob held never came back.", code="demo.failed")


def _who(agent: _Agent) -> str:
    said = agent.registered
    return f"{said['handle']}, who can {', '.join(said['capabilities'])}"


def _id(said: dict[str, Any]) -> str:
    return str(said["id"])


def _last(said: dict[str, Any]) -> str:
    message = said["messages"][-1]
    return f"{message['sender']}: {message['text']}"


def _claimed(said: dict[str, Any]) -> str:
    return f"{said['description']}, attempt {said['attempt']}"
