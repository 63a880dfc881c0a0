"""Who is there: identity, presence, the directory, and calling an agent wherever it lives.

A call goes `calls` (who asks) → `directory` and `routing` (who could) → the bus → `hosting` (who answers) → `admission`
→ the executor. `presence` and `directory` are the two ends of the NODES bucket.
"""
