"""What starts runs by itself? Times, messages, webhooks, requests and files; start with `room.py`.

A firing has a key, and a run that is started twice with one key is one run: so every node may see to a trigger, and no
due time or message starts two. Who does it is agreed on as for runs (`flow.shards`); that makes it cheap, not correct.
"""
