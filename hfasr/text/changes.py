"""What normalizing changed: of one text, and counted over a corpus."""

from collections import Counter
from dataclasses import dataclass, field

_MOST_KINDS = 20_000

# Rules whose single changes say nothing: a capital is a capital.
QUIET = ("case", "punctuation")


@dataclass(frozen=True)
class Normalized:
    """A text after normalizing.

    Args:
        text: The normalized text; empty for a dropped one.
        changes: Rule -> what it changed, such as "i → і" -> how often.
        dropped: Why the text was dropped; None if it was not.
    """

    text: str
    changes: dict[str, Counter]
    dropped: str | None = None


@dataclass
class RuleCount:
    """What one rule did in many texts.

    Args:
        changes: How often it changed something.
        texts: In how many texts.
        kinds: What it changed -> how often; of very many kinds only the more frequent half is kept.
        examples: (before, after) of the first texts that it changed.
    """

    changes: int = 0
    texts: int = 0
    kinds: Counter = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class NormalizationReport:
    """Counts over many texts; memory does not grow with their number.

    Args:
        language: Whose rules were used.
        examples: How many are kept for each rule.
        texts: How many were normalized.
        changed: How many of them came out different, dropped ones included.
        dropped: How many became empty because of a number.
        rules: Rule -> its counts, in the order in which they first occurred.
    """

    language: str
    examples: int = 3
    texts: int = 0
    changed: int = 0
    dropped: int = 0
    rules: dict[str, RuleCount] = field(default_factory=dict)

    def add(self, text: str, normalized: Normalized) -> None:
        """Count one text."""
        self.texts += 1
        self.changed += text != normalized.text
        self.dropped += normalized.dropped is not None
        for rule, kinds in normalized.changes.items():
            count = self.rules.setdefault(rule, RuleCount())
            count.texts += 1
            count.changes += kinds.total()
            count.kinds.update(kinds)
            if len(count.kinds) > _MOST_KINDS:
                count.kinds = Counter(dict(count.kinds.most_common(_MOST_KINDS // 2)))
            if len(count.examples) < self.examples:
                count.examples.append((text, normalized.text))

    def __str__(self) -> str:
        lines = [f"{self.texts:,} texts normalized ({self.language}), {self.changed:,} changed, {self.dropped:,} dropped"]
        for rule, count in sorted(self.rules.items(), key=lambda item: (item[0] in QUIET, -item[1].texts)):
            kinds = ", ".join(f"{kind} {number:,}" for kind, number in count.kinds.most_common(8))
            lines.append(f"{rule}: {count.changes:,} in {count.texts:,} texts ({kinds})")
            if rule not in QUIET:
                lines += [f"    {before}\n  = {after or '(dropped)'}" for before, after in count.examples]
        return "\n".join(lines)
