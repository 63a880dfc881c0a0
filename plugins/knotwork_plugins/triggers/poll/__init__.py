"""An HTTP address that is looked at now and again: `plugin` is the trigger, `answers` reads what is in an answer."""
