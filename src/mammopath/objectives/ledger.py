"""Which ingredients of a method really ran, and why others did not."""

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Counts of what was executed; a report prints configured ingredients that stayed at 0.

    Attributes:
        counters: configured ingredient -> how often it ran.
        idle_reasons: ingredient -> the different reasons why it did not, where it did not.
    """

    counters: dict[str, int] = field(default_factory=dict)
    idle_reasons: dict[str, str] = field(default_factory=dict)

    def configure(self, name: str) -> None:
        """List an ingredient, at 0."""
        self.counters.setdefault(name, 0)

    def ran(self, name: str, times: int = 1) -> None:
        """Add to the count of an ingredient."""
        self.counters[name] = self.counters.get(name, 0) + times

    def idle(self, name: str, reason: str) -> None:
        """Note why an ingredient could not run."""
        told = self.idle_reasons.get(name)
        if told is None:
            self.idle_reasons[name] = reason
        elif reason not in told.split("; "):
            self.idle_reasons[name] = f"{told}; {reason}"
