"""An agent as a Job: `plugin` is the spin-up, `config` its options, `manifest` what is created, `link` how the API is asked."""
