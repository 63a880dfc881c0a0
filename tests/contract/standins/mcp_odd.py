"""An MCP server written by hand, as many are; its first argument says what is odd about it, a second one is a port.

`silent` answers no request that it does not know, `leaves` ends at one that comes before `initialize`, `modern` refuses
`initialize`. Its tool answers with the JSON-RPC result or error that it is given, and with its process id else.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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

asked = set()


def answer_to(request):
    """Return what it answers, None when it is silent; raises `SystemExit` when it ends."""
    method, number = request["method"], request.get("id")
    asked.add(method)
    if ODDITY == "leaves" and "initialize" not in asked:
        sys.exit("expected initialize request")
    if number is None:
        return None
    answer = {"error": {"code": -32601, "message": f"no method {method}"}}
    if method in KNOWN:
        answer = {"result": result_of(method, request.get("params"))}
    elif method == "tools/call":
        said = {"content": [{"type": "text", "text": str(os.getpid())}], **FRESH}
        answer = request["params"].get("arguments") or {"result": said}
    elif ODDITY == "silent":
        return None
    return json.dumps({"jsonrpc": "2.0", "id": number, **answer})


class OverHttp(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            said = answer_to(request)
        except SystemExit:
            self.close_connection = True
            return
        if said is None and "id" in request:
            threading.Event().wait()
        self.send_response(202 if said is None else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said or "")))
        self.end_headers()
        self.wfile.write((said or "").encode())

    def do_GET(self):
        self.send_error(405)

    def log_message(self, *_):
        pass


if sys.argv[2:]:
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), OverHttp).serve_forever()
for line in sys.stdin:
    said = answer_to(json.loads(line))
    if said is not None:
        sys.stdout.write(said + "\n")
        sys.stdout.flush()
