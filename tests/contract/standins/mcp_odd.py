"""An MCP server written by hand, over stdio, as many are; its first argument says what is odd about it.

`silent` answers no request that it does not know, `leaves` ends at one that comes before `initialize`, `modern` refuses
`initialize`. Its tool answers with the JSON-RPC result or error that it is given, and with its process id else.
"""

import json
import os
import sys

ODDITY = sys.argv[1]
TOOL = {"name": "say", "inputSchema": {"type": "object"}}


def result_of(method, params):
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": WHO}
    if method == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **FRESH}
    return {"tools": [TOOL], **FRESH}


WHO = {"name": "odd", "version": "1"}
FRESH = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
KNOWN = {"initialize", "tools/list"} if ODDITY != "modern" else {"server/discover", "tools/list"}

greeted = ODDITY != "leaves"
for line in sys.stdin:
    request = json.loads(line)
    method, number = request["method"], request.get("id")
    greeted = greeted or method == "initialize"
    if not greeted:
        sys.exit("expected initialize request")
    if number is None:
        continue
    answer = {"error": {"code": -32601, "message": f"no method {method}"}}
    if method in KNOWN:
        answer = {"result": result_of(method, request.get("params"))}
    elif method == "tools/call":
        said = {"content": [{"type": "text", "text": str(os.getpid())}], **FRESH}
        answer = request["params"].get("arguments") or {"result": said}
    elif ODDITY == "silent":
        continue
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": number, **answer}) + "\n")
    sys.stdout.flush()
