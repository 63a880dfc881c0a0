"""An agent as a Job: `plugin` is the spin-up, `manifest` what is created, `link` how the API is asked."""
