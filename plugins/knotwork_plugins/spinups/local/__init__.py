"""An agent as a process on this machine: `plugin` is the spin-up, `life` how its process is found and ended."""
