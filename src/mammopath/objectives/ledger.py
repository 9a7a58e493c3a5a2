"""Which ingredients of a method really ran, and why others did not."""

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Counts of what was executed; a report prints configured ingredients that stayed at 0.

    Attributes:
        counters: configured ingredient -> how often it ran.
        idle_reasons: ingredient -> why it did not run when it last did not.
    """

    counters: dict[str, int] = field(default_factory=dict)
    idle_reasons: dict[str, str] = field(default_factory=dict)

    def configure(self, name: str) -> None:
        """List an ingredient, at 0."""
        self.counters.setdefault(name, 0)

    def ran(self, name: str, times: int = 1) -> None:
        """Add to the count of a configured ingredient."""
        self.counters[name] += times

    def idle(self, name: str, reason: str) -> None:
        """Note why an ingredient could not run."""
        self.idle_reasons[name] = reason
