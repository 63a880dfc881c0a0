"""Who may do what: keys and, above them, projects, tokens, invitations and audit.

`keys` keeps the nkey seeds that nodes and local doors prove themselves with.
"""
