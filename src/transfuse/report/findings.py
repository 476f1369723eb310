"""What a table of a sweep shows and does not show, in a few sentences."""

from __future__ import annotations

from transfuse.report.comparison import Row, Table
from transfuse.report.numbers import spread
from transfuse.report.tables import places
from transfuse.report.transfer import on_benefit, on_negative_transfer

_NAMED = 3  # strategies that a sentence lists


def findings(table: Table) -> list[str]:
    """Sentences for the top of the report; none of them claims more than the verdicts."""
    return [_best(table), *_verdicts(table), *_transfer(table), *_one_seed(table)]


def _best(table: Table) -> str:
    row = table.rows[0]
    digits, _ = places(table)
    mean = spread(row.mean, row.sd, digits).replace("+-", "\N{PLUS-MINUS SIGN}")
    kind = "Highest" if table.higher_is_better else "Lowest"
    standing = {"reference": ", which is the reference", None: ""}.get(row.verdict, f" ({row.verdict})")
    return f"{kind} mean {table.metric}: {row.strategy}, {mean}{standing}."


def _verdicts(table: Table) -> list[str]:
    if table.reference is None:
        return ["Without the reference in the sweep there is no verdict: the order may be chance."]
    by_word = {word: [row for row in table.rows if row.verdict == word] for word in ("better", "worse", "inconclusive")}
    if not any(by_word.values()):
        return ["No other strategy was compared to the reference."]
    found = [f"{word.capitalize()} than {table.reference}: {_listed(by_word[word])}." for word in ("better", "worse")]
    unclear = len(by_word["inconclusive"])
    if unclear:
        found.append(
            f"Inconclusive: {unclear} of {sum(map(len, by_word.values()))}. Their differences may be chance; that is "
            "no proof that they are equal."
        )
    return found


def _transfer(table: Table) -> list[str]:
    if table.kind != "transfer":
        return []
    found = [*on_negative_transfer(table.rows), *on_benefit(table.rows)]
    return [sentence[0].upper() + sentence[1:] if sentence.startswith("transfer") else sentence for sentence in found]


def _one_seed(table: Table) -> list[str]:
    if len(table.seeds) > 1:
        return []
    return [
        "One seed only: intervals say how far the test examples bear out these very trainings. They cannot show how "
        "much another training, another split or another order of the data would change the result, which is often "
        "more than the differences between strategies. No strategy is therefore called better or worse."
    ]


def _listed(rows: list[Row]) -> str:
    if not rows:
        return "none"
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(row.strategy for row in rows[:_NAMED]) + more
