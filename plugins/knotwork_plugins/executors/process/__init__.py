"""Any command as an agent: `plugin` is the executor, the other files are how a process is fed, heard and ended."""
