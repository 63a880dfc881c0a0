"""An agent on a machine that takes SSH: `plugin` is the spin-up, `config` its options, `far` what the far shell is told, `link` how."""
