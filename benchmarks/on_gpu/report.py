"""Tables of figures, as Markdown for readers and JSON for programs. Knows no kernel."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Table:
    """`goal`: what the figures are held against, in words. Rows have a cell for each column."""

    title: str
    columns: Sequence[str]
    goal: str = ""
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        assert len(cells) == len(self.columns), f"{cells} for {self.columns}"
        self.rows.append(list(cells))
        print("  " + " | ".join(cells), flush=True)

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        if self.goal:
            lines += [self.goal, ""]
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("|" + "---|" * len(self.columns))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines)


def write(folder: Path, name: str, facts: dict[str, str], tables: Sequence[Table]) -> Path:
    """NAME.md and NAME.json in `folder`; returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    header = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    text = "\n\n".join([f"# {name}", header, *(table.markdown() for table in tables)]) + "\n"
    page = folder / f"{name}.md"
    page.write_text(text)
    data = {"facts": facts, "tables": [asdict(table) for table in tables]}
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1))
    return page


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"
