"""Who asks, what may they see, and how do they prove it?

`who` says who asks, `scopes` what somebody may see; `keys` keeps the nkey seeds that nodes and local doors prove
themselves with, `seals` makes what is given out provably ours; `unseen` lets nothing hide in what they write.
"""
