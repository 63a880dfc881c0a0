"""How long to wait before a plugin is tried again, and when to stop trying. Pure: time and chance are handed in."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pace:
    """The rules, times in seconds: pauses double from `first_s` to `most_s`, give or take `jitter` of each.

    `crashes_max` crashes within `crash_window_s` end in quarantine; `healthy_s` of running resets the pauses.
    """

    first_s: float = 1.0
    most_s: float = 60.0
    jitter: float = 0.2
    crashes_max: int = 5
    crash_window_s: float = 600.0
    healthy_s: float = 60.0


@dataclass(slots=True)
class History:
    """What happened to one plugin so far."""

    pace: Pace
    failures: int = 0
    crashes: list[float] = field(default_factory=list)

    def failed(self, *, now_s: float, ran_s: float, crashed: bool, chance: float) -> float | None:
        """Return the pause in seconds before the next try, or None for quarantine.

        `ran_s` is how long it ran before, `chance` a random number from 0 to 1. A crash counts towards quarantine,
        a plugin that only asked for patience (`crashed=False`) does not.
        """
        if ran_s >= self.pace.healthy_s:
            self.failures = 0
        self.failures += 1
        if crashed:
            self.crashes = [at for at in self.crashes if now_s - at < self.pace.crash_window_s] + [now_s]
            if len(self.crashes) >= self.pace.crashes_max:
                return None
        doubled = self.pace.first_s * 2.0 ** min(self.failures - 1, 32)
        return min(doubled, self.pace.most_s) * (1.0 - self.pace.jitter + 2.0 * self.pace.jitter * chance)

    def forget(self) -> None:
        """Start anew: an operator asked for it."""
        self.failures = 0
        self.crashes.clear()
