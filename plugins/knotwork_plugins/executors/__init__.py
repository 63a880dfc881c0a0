"""Ways of carrying out work: one file or folder each; `prompting` and `trouble` are what the language models share."""

from knotwork_plugins.executors import rehearsal
from knotwork_plugins.executors.agent_cli import claude_code, codex, copilot, gemini
from knotwork_plugins.executors.http_call import plugin as http
from knotwork_plugins.executors.mcp_tool import plugin as mcp
from knotwork_plugins.executors.openai_chat import plugin as openai
from knotwork_plugins.executors.process import plugin as process
from knotwork_plugins.executors.python_function import plugin as python

FACTORIES = tuple(
    module.FACTORY for module in (process, python, http, claude_code, copilot, codex, gemini, openai, mcp, rehearsal)
)
