"""How is a vendor's agent command line run as an executor?

`claude-code`, `codex`, `gemini` and `copilot` are one executor with four dialects. A `Dialect` knows the flags, the
events and the words of one vendor; everything else is here: the prompt, the clean environment, the process and its
limits, live text and progress, and how the run ended.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor as ThreadPool
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field

from knotwork.sdk import Attempt, Context, Done, Factory, Failed, Outcome, PluginConfig, SecretRef, Unavailable
from knotwork_plugins.executors import prompting, trouble
from knotwork_plugins.executors.agent_cli import run as cli_process
from knotwork_plugins.executors.agent_cli.heard import Heard, event_of

ARGUMENT_MAX = 100_000  # bytes; Linux refuses a single argument over 128 KiB
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class CliAgentConfig(PluginConfig):
    """What every agent command line can be told."""

    model_config = ConfigDict(defer_build=True)  # built when first used: this file is imported at every start

    command: tuple[str, ...] = Field(min_length=1, description="program, and arguments that always come first")
    api_key: SecretRef | None = Field(
        default=None,
        description="key handed over in the vendor's environment variable; default: the vendor's own login",
    )
    model: str = Field(default="", max_length=200, description="model to use; empty: the vendor's default")
    system_prompt: str = Field(default="", max_length=100_000, description="instructions put before every prompt")
    template: str = Field(
        default="", max_length=100_000, description="text around the prompt; fills {prompt}, {input}, {input.key}"
    )
    resume: str = Field(default="", description="session every call goes on with; an input may carry its own `session`")
    cwd: str = Field(default="", description="folder to work in; empty: a folder of the agent's own in the data folder")
    env: dict[str, str] = Field(default_factory=dict, description="environment variables to add")
    secret_env: dict[str, SecretRef] = Field(default_factory=dict, description="environment variables from secrets")
    extra_args: tuple[str, ...] = Field(default=(), description="arguments handed through to the command as they are")
    idle_timeout_s: float = Field(default=900.0, gt=0, le=86_400, description="seconds of silence before it is ended")
    grace_s: float = Field(default=1.0, ge=0, le=30, description="seconds between SIGTERM and SIGKILL")
    answer_max: int = Field(default=4_000_000, ge=1, le=7_000_000, description="characters kept of an answer")
    line_max: int = Field(default=8_000_000, ge=1_000, le=64_000_000, description="bytes of one event; longer: skipped")
    output_max: int = Field(default=256_000_000, ge=10_000, description="bytes it may print before it is ended")


C = TypeVar("C", bound=CliAgentConfig)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one run is asked: the prompt, the session to go on with ("" for a new one), a folder for helper files."""

    prompt: str
    session: str
    folder: Path


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Arguments after the command, and what is written to its stdin."""

    arguments: tuple[str, ...]
    stdin: str = ""


class Dialect(ABC, Generic[C]):
    """Flags, events and words of one vendor."""

    name: ClassVar[str]
    summary: ClassVar[str]
    install: ClassVar[str]
    sign_in: ClassVar[str]
    key_variable: ClassVar[str]
    takes_system_prompt: ClassVar[bool] = False
    always_says_end: ClassVar[bool] = True

    @abstractmethod
    def command_line(self, config: C, ask: Ask) -> CommandLine:
        """Return the arguments for one run."""

    @abstractmethod
    def read(self, event: dict[str, Any], heard: Heard) -> None:
        """Take one event; unknown ones are left alone, and no event whatever makes this raise."""

    def prepare(self, config: C, folder: Path) -> None:
        """Write helper files once, at open; runs in a thread."""


class CliAgent(Generic[C]):
    """The executor: one process per attempt."""

    def __init__(self, dialect: Dialect[C], config: C, context: Context, threads: ThreadPool) -> None:
        """Keep the parts; nothing is started. `threads` carry the looks at the process table."""
        self.dialect = dialect
        self.config = config
        self.context = context
        self._threads = threads
        self._limits = cli_process.Limits(
            line_max=config.line_max,
            output_max=config.output_max,
            idle_timeout_s=config.idle_timeout_s,
            grace_s=config.grace_s,
        )

    async def probe(self) -> None:
        """Return when the command and its folder exist; raises `Unavailable` else."""
        self._program(self.context.child_env(dict(self.config.env)))
        self._folder()

    async def execute(self, attempt: Attempt) -> Outcome:
        """Run the command once for this input."""
        asked = self._ask(attempt.input)
        if isinstance(asked, Failed):
            return asked
        line = self.dialect.command_line(self.config, asked)
        if any("\0" in argument for argument in line.arguments):
            return Failed("The prompt has a NUL character, which no command line can carry.", code="request.invalid")
        heard = Heard(text_max=self.config.answer_max)

        async def on_line(raw: bytes) -> bool:
            event = event_of(raw)
            if event is None:
                heard.overhear(raw)
            else:
                self.dialect.read(event, heard)
                await _tell(heard, attempt)
            return heard.ended

        try:
            env = await self._environment(attempt)
            argv = (self._program(env), *self.config.command[1:], *line.arguments)
            ending = await cli_process.run(
                argv,
                env=env,
                cwd=self._folder(),
                stdin=line.stdin,
                limits=self._limits,
                threads=self._threads,
                on_line=on_line,
            )
        except Unavailable as gone:
            return Failed(str(gone), code=gone.code, retriable=True)
        except (OSError, ValueError) as error:
            return Failed(f"{self.config.command[0]!r} cannot be started: {error}.", code="agent.cannot_start")
        return self._outcome(heard, ending)

    def _ask(self, given: Any) -> Ask | Failed:
        prompt = prompting.prompt_of(given, self.config.template)
        if not prompt.strip():
            return Failed("The prompt is empty. Send a text, or an object with `prompt`.", code="request.invalid")
        session = given.get("session", "") if isinstance(given, dict) and "prompt" in given else ""
        session = session or self.config.resume
        # A session is put on the command line: nothing that could be read as a flag or a path gets there.
        if session and not (isinstance(session, str) and SESSION.fullmatch(session)):
            return Failed(
                f"{str(session)[:80]!r} is no session. Send the `session` of an earlier answer.", code="request.invalid"
            )
        if self.config.system_prompt and not self.dialect.takes_system_prompt:
            prompt = f"{self.config.system_prompt}\n\n{prompt}"
        return Ask(prompt=prompt, session=session, folder=self.context.folder)

    def _program(self, env: dict[str, str]) -> str:
        command = self.config.command[0]
        if Path(command).name != command:  # a path, and not the one of whoever started the node
            command = str(self.context.base / Path(command).expanduser())
        found = shutil.which(command, path=env.get("PATH"))
        if found is None:
            raise Unavailable(
                f"The command {command!r} of agent {self.context.id!r} is not there.",
                code="agent.command_missing",
                hint=f"{self.dialect.install}, or set `command` to where it is.",
            )
        return found

    def _folder(self) -> Path:
        folder = self.context.base / Path(self.config.cwd).expanduser() if self.config.cwd else self.context.folder
        if not folder.is_dir():
            raise Unavailable(
                f"The folder {str(folder)!r} of agent {self.context.id!r} is not there.",
                code="agent.folder_missing",
                hint="Create it, or mend `cwd`.",
            )
        return folder

    async def _environment(self, attempt: Attempt) -> dict[str, str]:
        extra = dict(self.config.env)
        secrets = dict(self.config.secret_env)
        if self.config.api_key is not None:
            secrets[self.dialect.key_variable] = self.config.api_key
        for name, reference in secrets.items():
            # In a thread: a `{cmd = …}` secret may take seconds.
            extra[name] = await asyncio.to_thread(self.context.secrets, reference)
        if attempt.traceparent:
            extra["TRACEPARENT"] = attempt.traceparent
        return self.context.child_env(extra)

    def _outcome(self, heard: Heard, ending: cli_process.Ending) -> Outcome:
        output = heard.output()
        if heard.trouble is not None and not (heard.ended and heard.answer):
            return self._failed(heard.trouble, heard, ending)
        if heard.ended:
            return Done(output)
        if ending.why == "silent":
            found = trouble.Trouble(
                f"It said nothing for {self.config.idle_timeout_s:g} s and was ended.", "agent.silent", retriable=True
            )
        elif ending.why == "too_much":
            found = trouble.Trouble(
                f"It printed more than {self.config.output_max} bytes and was ended.", "agent.output_too_large"
            )
        elif ending.exit_code == 0 and not self.dialect.always_says_end and heard.text:
            return Done(output)
        elif ending.exit_code == 0:
            found = trouble.Trouble("It exited before it had finished its answer.", "agent.truncated", retriable=True)
        elif ending.exit_code is None or ending.exit_code < 0:
            found = trouble.Trouble(
                f"It was ended by signal {-(ending.exit_code or 0)}.", "agent.crashed", retriable=True
            )
        else:
            # Some say on stdout, in plain words, why they fail.
            complaint = "\n".join([*heard.overheard, ending.complaint()]).strip()
            complaint = complaint or f"exit code {ending.exit_code} and no word why"
            found = trouble.sort(complaint[-trouble.MESSAGE_MAX :])
        return self._failed(found, heard, ending)

    def _failed(self, found: trouble.Trouble, heard: Heard, ending: cli_process.Ending) -> Failed:
        hint = ""
        if found.code == trouble.UNAUTHENTICATED:
            hint = f"{self.dialect.sign_in} as the user the node runs as, or set `api_key`."
        elif found.code == trouble.OUT_OF_CREDIT:
            hint = "Add credit or raise the limit at the vendor."
        if found.code == trouble.RATE_LIMITED and found.retry_after_s is None and heard.resets_at_s is not None:
            pause = heard.resets_at_s - self.context.clock.time_ns() / 1e9
            found = replace(found, retry_after_s=trouble.bounded_pause(pause))
        detail: dict[str, Any] = {"exit_code": ending.exit_code, "partial": heard.output()}
        if complaint := ending.complaint():
            detail["stderr"] = complaint[-trouble.MESSAGE_MAX :]
        if heard.unread or ending.skipped_lines:
            detail["lines_not_understood"] = heard.unread + ending.skipped_lines
        return found.failed(hint, **detail)


async def _tell(heard: Heard, attempt: Attempt) -> None:
    notes, heard.notes = heard.notes, []
    chunks, heard.chunks = heard.chunks, []
    for note in notes:
        attempt.report.progress(None, note)
    for chunk in chunks:
        await attempt.report.stream(chunk)


def factory_of(dialect: Dialect[C], config: type[C]) -> Factory[CliAgent[C]]:
    """Return the factory of one dialect. Opening it raises `Unavailable` when the command or its folder is missing."""

    @asynccontextmanager
    async def open_agent(config: C, context: Context) -> AsyncIterator[CliAgent[C]]:
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix=f"agent-{context.id}") as threads:
            agent = CliAgent(dialect, config, context, threads)
            await agent.probe()
            await asyncio.to_thread(dialect.prepare, config, context.folder)
            yield agent

    opener: Callable[[Any, Context], AbstractAsyncContextManager[CliAgent[C]]] = open_agent
    return Factory(
        name=dialect.name,
        config=config,
        open=opener,
        summary=dialect.summary,
        abilities=("streams", "progress", "resumes", "cancels"),
    )


PromptAs = Literal["argument", "stdin"]


def fits_argument(prompt: str) -> bool:
    """Say whether a prompt may be an argument; longer ones go to stdin."""
    return len(prompt.encode("utf-8", "replace")) <= ARGUMENT_MAX
