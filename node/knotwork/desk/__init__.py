"""What does a node answer to those who ask? One module for each group of ops: rooms on one side, replies on the other."""
