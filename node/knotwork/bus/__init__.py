"""How things move and persist: the only room that knows NATS.

`server` boots nats-server as a child, `connection` stays connected, `publisher` and `commit` make facts durable,
`kv` keeps and watches small records, `subjects` and `patterns` hold every name.
"""
