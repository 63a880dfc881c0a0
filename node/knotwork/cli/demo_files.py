"""What do the two nodes of the demo read? Their configurations, a workflow, and a function that is an agent."""

from __future__ import annotations

ALPHA = """# the first node: boots its own NATS server, and hosts two agents
[node]
name = "alpha"

[work]
lease_s = 1                             # a worker that is silent for so long has lost its task

[executors.count-words]                 # a real command on real files
type = "process"
description = "counts the words of a file"
command = ["wc", "-w"]
input_as = "argument"
capabilities = ["count"]

[executors.shape]                       # a Python function
type = "python"
description = "tells the shape of a text"
function = "./shape.py:shape"
capabilities = ["describe"]
"""

BETA = """# the second node: joins the first one's NATS with a key
[node]
name = "beta"

[nats]
mode = "join"
urls = [{url}]
nkey_seed = {{ file = {seed} }}

[work]
lease_s = 1

[executors.proofread]                   # its first try takes a minute: long enough to be killed in the middle
type = "process"
command = ["sh", "-c", "[ -e tried ] || {{ touch tried; sleep 60; }}; wc -l"]
capabilities = ["proofread"]

[executors.weather]                     # anything that answers HTTP
type = "http"
description = "asks a web service"
url = {weather}
capabilities = ["weather"]

[executors.longest]                     # the same capability as on alpha, elsewhere
type = "process"
description = "the longest line of a file"
command = ["wc", "-L"]
input_as = "argument"
capabilities = ["{capability}"]
"""

REPORT = """# a workflow: steps in order, each done by whoever can
name = "report"
output = {words = "steps.count.output", sky = "steps.sky.output.sky", by = "steps.ask.output.by"}

[steps.count]                           # every file at once, the results in their order
kind = "map"
items = "input.files"
agent = "count-words"

[steps.sky]                             # on the other node, at the same time
capability = "weather"
input = {city = "input.city"}

[steps.ask]                             # a person decides
kind = "approval"
depends_on = ["count", "sky"]
"""

SHAPE = '''"""An agent is any function: its argument is the input, what it returns is the answer."""


def shape(text):
    words = text.split()
    return {"words": len(words), "longest": max(words, key=len)}
'''
