"""An agent in a container: `plugin` is the spin-up, `config` its options, `speech` what is said to Docker."""
