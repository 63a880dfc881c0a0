"""An agent on a machine that takes SSH: `plugin` is the spin-up, `far` what the far shell is told, `link` how."""
