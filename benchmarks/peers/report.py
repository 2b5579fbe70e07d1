"""Results as tables of Markdown and as a plot.

    python benchmarks/peers/report.py RESULTS.json     # prints the tables, draws RESULTS.png

Owns: the layout. The plot needs matplotlib, which nothing else here does, so any Python that has it
may draw it from the JSON file.
"""

import importlib.util
import json
import sys
from pathlib import Path

from results import Measure, Results


def markdown(results: Results) -> str:
    """All tables: the medians, ours next to each peer's, and what there is to say of them."""
    parts = [_facts(results), _medians(results)]
    parts += [_ratios(results, our) for our in results.ours() if results.others()]
    parts.append(_notes(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(results: Results) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in results.facts.items())


def _medians(results: Results) -> str:
    peers = list(results.peers)
    rows = [
        [_title(measure), *(figure(results.median(p, measure.name)) for p in peers)]
        for measure in results.measures
    ]
    return _table(["median", *peers], rows)


def _ratios(results: Results, our: str) -> str:
    """Rows that neither side has a figure for are left out."""
    peers = results.others()
    rows = []
    for measure in results.measures:
        ratios = [results.ratio(our, peer, measure.name) for peer in peers]
        if any(ratio is not None for ratio in ratios):
            better = "more" if measure.more_is_better else "less"
            cells = ["" if ratio is None else f"{ratio:.2f}x" for ratio in ratios]
            rows.append([f"{measure.title} ({better} is better)", *cells])
    return _table([f"{our} / peer", *peers], rows) if rows else ""


def _notes(results: Results) -> str:
    lines = [f"- {name}: not measured, {why}" for name, why in results.absent.items()]
    for peer, row in results.peers.items():
        for measure, cell in row.items():
            lines += [f"- {peer}, {measure}: {note}" for note in cell.notes]
    return "\n".join(lines)


def _title(measure: Measure) -> str:
    return f"{measure.title}, {measure.unit}"


def figure(value: float | None) -> str:
    """Three significant digits and no more than whole numbers; empty where there is none."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- the plot ----------------------------------------------------------------------------------


def times_as_fast(results: Results, our: str, peer: str, measure: Measure) -> float | None:
    """Above 1 where ours is the better side, whatever the unit."""
    ratio = results.ratio(our, peer, measure.name)
    if not ratio:
        return None
    return ratio if measure.more_is_better else 1 / ratio


def can_plot() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def plot(results: Results, path: Path) -> None:
    """One panel for each of ours: how many times as good as each peer, by measure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ours, others = results.ours(), results.others()
    size = (6.5 * len(ours), 1.5 + 0.11 * len(others) * len(results.measures))
    figure, panels = pyplot.subplots(1, len(ours), figsize=size, sharey=True, squeeze=False)
    height = 0.8 / max(len(others), 1)
    for panel, our in zip(panels[0], ours, strict=True):
        for number, peer in enumerate(others):
            bars = [
                (row + number * height, times)
                for row, measure in enumerate(results.measures)
                if (times := times_as_fast(results, our, peer, measure)) is not None
            ]
            places = [place for place, _ in bars]
            lengths = [times - 1 for _, times in bars]
            panel.barh(places, lengths, height, left=1, label=peer, color=f"C{number}")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}x")
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_title(f"{our}: times as good as")
    titles = [measure.title for measure in results.measures]
    panels[0][0].set_yticks([row + 0.4 - height / 2 for row in range(len(titles))], titles)
    panels[0][0].invert_yaxis()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    path = Path(sys.argv[1])
    results = Results.from_json(json.loads(path.read_text()))
    print(markdown(results))
    if can_plot():
        plot(results, path.with_suffix(".png"))
    else:
        print("no plot: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
