"""What do agents say to each other? Channels that a whole project reads, and an inbox for each agent."""
