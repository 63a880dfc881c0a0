"""How fast is it, beside raw nats-py in the same run? Each bench prints both and their ratio, never one time alone.

`suite` knows the names; `invoke` is the path of one invocation.
"""
