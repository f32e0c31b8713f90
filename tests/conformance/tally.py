"""Counts, per provider and wire, how many records were read as the facts say; prints the table at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .records import Record, exceptions

Key = tuple[str, str]


@dataclass
class Tally:
    """What was checked in this run."""

    reads: Counter[Key] = field(default_factory=Counter[Key])
    """Times an answer was read, all fragmentations and both clients counted."""
    seen: dict[Key, set[str]] = field(default_factory=dict[Key, set[str]])
    without_facts: dict[Key, set[str]] = field(default_factory=dict[Key, set[str]])
    failed: dict[Key, dict[str, list[str]]] = field(default_factory=dict[Key, dict[str, list[str]]])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    """More lines for the end of the run, by title."""

    def count(self, record: Record, problems: Iterable[str]) -> None:
        """Notes one reading of a record and what was wrong with it."""
        key = (record.provider, record.wire)
        self.reads[key] += 1
        self.seen.setdefault(key, set()).add(record.id)
        found = list(problems)
        if found:
            self.failed.setdefault(key, {}).setdefault(record.id, []).extend(found)

    def skip(self, record: Record) -> None:
        """Notes a record for which no facts were derived."""
        self.without_facts.setdefault((record.provider, record.wire), set()).add(record.id)

    def unexpected(self, ids: Iterable[str]) -> list[str]:
        """A line for each failing record among `ids` that no exception names."""
        wanted = set(ids)
        return [
            f"{record_id}: {'; '.join(dict.fromkeys(problems))}"
            for group in self.failed.values()
            for record_id, problems in group.items()
            if record_id in wanted and record_id not in exceptions()
        ]

    def rate(self, wire: str | None = None) -> tuple[int, int]:
        """(records that failed, records read), of one wire or of all."""
        failed = sum(len(group) for (_, of), group in self.failed.items() if wire in (None, of))
        seen = sum(len(group) for (_, of), group in self.seen.items() if wire in (None, of))
        return failed, seen

    def table(self) -> list[str]:
        """The counts as lines of text."""
        lines = [
            (
                f"{'provider':<18}{'wire':<18}{'records':>8}{'reads':>8}{'as told':>9}"
                f"{'excepted':>10}{'no facts':>10}"
            )
        ]
        for key in sorted(self.seen.keys() | self.without_facts.keys()):
            seen = len(self.seen.get(key, ()))
            failed = self.failed.get(key, {})
            excepted = sum(1 for record_id in failed if record_id in exceptions())
            lines.append(
                f"{key[0]:<18}{key[1]:<18}{seen:>8}{self.reads[key]:>8}{seen - len(failed):>9}{excepted:>10}"
                f"{len(self.without_facts.get(key, ())):>10}"
            )
        failed_count, seen_count = self.rate()
        excepted_count = sum(
            record_id in exceptions() for group in self.failed.values() for record_id in group
        )
        lines.append(
            f"{'all':<36}{seen_count:>8}{sum(self.reads.values()):>8}{seen_count - failed_count:>9}"
            f"{excepted_count:>10}"
            f"{sum(len(group) for group in self.without_facts.values()):>10}"
        )
        return lines + [f"{title}: {text}" for title, text in self.notes.items()]
