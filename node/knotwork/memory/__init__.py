"""What is remembered, by scope: kept by memory plugins, found by words and by meaning, seen by those who may.

`rules` says who may do what, `room` does it, `shelf` keeps the local index current.
"""
