"""A local HTTP server that speaks the chat completions of an OpenAI-compatible endpoint. Prints its port.

Words in capitals in the prompt make it misbehave. `GET /last` tells the last request it got.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAST = {}
REFUSALS = {
    "RATE": (429, {"Retry-After": "7"}, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}),
    "DATED": (429, {"Retry-After": "Tue, 14 Nov 2023 22:14:20 GMT"}, {"error": {"message": "Slow down"}}),
    "CREDIT": (429, {}, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    "LOGIN": (401, {}, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}),
    "BAD": (400, {}, {"error": {"message": "max_tokens is too large", "type": "invalid_request_error"}}),
    "DOWN": (503, {}, "upstream connect error"),
    "MOVED": (302, {"Location": "/elsewhere"}, ""),
}


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(200, {}, LAST)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        LAST.update(path=self.path, headers=dict(self.headers), body=request)
        prompt = str(request["messages"][-1].get("content"))
        for word, (status, headers, body) in REFUSALS.items():
            if word in prompt:
                self.answer(status, headers, body)
                return
        if request.get("stream"):
            self.stream(prompt, request)
        else:
            message = {"role": "assistant", "content": f"You said: {prompt}"}
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.answer(200, {}, {"model": "m-1", "choices": [choice], "usage": usage})

    def answer(self, status, headers, body):
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def stream(self, prompt, request):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.send("\ufeff" if "MARKED" in prompt else ": a comment\r\n\r\n")
        if "HANG" in prompt:
            time.sleep(30)
        if "MARKED" not in prompt:
            self.event(delta={"role": "assistant", "content": ""})
        if "GARBAGE" in prompt:
            self.send('data: {\n\ndata: [1]\n\nevent: x\nid: 1\ndata: null\n\ndata: {"choices": 7}\n\n')
        if "HUGE" in prompt:
            self.send("data: " + "x" * 5_000_000)
        if "CALLS" in prompt:
            self.calls()
            return
        for text in ("You ", "said: ", prompt, *(("\ud83d", "\ude00") if "HALVES" in prompt else ())):
            self.event(delta={"content": text})
        if "MIDWAY" in prompt:
            self.send('data: {"error": {"message": "The server is overloaded", "code": "server_error"}}\n\n')
        if "TRUNCATED" in prompt:
            self.send("")
            return
        if "CUT" in prompt:
            self.close_connection = True
            self.connection.close()
            return
        self.finish(prompt, request)

    def finish(self, prompt, request):
        self.event(delta={}, finish_reason="stop")
        if request.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            self.send("data: " + json.dumps({"model": "m-1", "choices": [], "usage": usage}) + "\r\n\r\n")
        if "NODONE" not in prompt:
            self.send("data: [DONE]\n\n")
        self.send("")

    def calls(self):
        call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a"'}}
        self.event(delta={"tool_calls": [call]})
        more = {"index": 0, "function": {"arguments": ": 1}"}}
        self.event(delta={"tool_calls": [more]}, finish_reason="tool_calls")
        self.send("data: [DONE]\n\n")
        self.send("")

    def event(self, **choice):
        self.send("data: " + json.dumps({"model": "m-1", "choices": [{"index": 0, **choice}]}) + "\n\n")

    def send(self, text):
        raw = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self.wfile.flush()


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


main()
