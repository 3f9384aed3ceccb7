"""Draws the rows of a comparison: `plot.py FOLDER` reads rows.jsonl and writes SVG and PNG files.

A point is the median of its rounds; a bar spans from the lowest to the highest round. A row that does
not count is left out. A contender has the same colour in every plot; the floors are grey and dashed.
"""

import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

# The colours of Okabe and Ito: readers with colour blindness can tell them apart, in print too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
FLOORS = {"floor": ("#666666", "--"), "floor-parsing": ("#999999", ":")}
SIZE_INCHES = (8, 5)

#: Names of steady loads with an endpoint that answers at once.
STEADY = re.compile(r"flat|rate-\d+")
#: A steady load with answers that take time, and a load of a daemon held to a share of a processor.
DELAYED = re.compile(r"rate-\d+-(\d+)ms")
LIMITED = re.compile(r"((quota|ecs)-\d+)-[\d.]+p")

plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "grid.alpha": 0.3,
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
        # With a fixed salt the same rows produce the same SVG file.
        "svg.hashsalt": "xrayd-perf",
    }
)


class Run:
    """The rows of a folder, by scenario and contender."""

    def __init__(self, folder):
        self.folder = folder
        with open(folder / "rows.jsonl", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        self.rows = [row for row in rows if "discarded" not in row]
        self.scenarios = {row["scenario"] for row in self.rows}
        names = sorted({row["contender"] for row in self.rows})
        self.daemons = [name for name in names if name not in FLOORS]
        self.contenders = self.daemons + [name for name in FLOORS if name in names]

    def style(self, contender):
        """Returns the line style of a contender."""
        if contender in FLOORS:
            colour, dashes = FLOORS[contender]
            return {"color": colour, "linestyle": dashes}
        return {"color": COLOURS[self.daemons.index(contender) % len(COLOURS)]}

    def points(self, contender, figures, wanted=STEADY):
        """Returns (median, minimum, maximum) of each figure per wanted load, sorted by the first."""
        by_scenario = defaultdict(list)
        for row in self.rows:
            if row["contender"] == contender and wanted.fullmatch(row["scenario"]):
                by_scenario[row["scenario"]].append(row["figures"])
        points = []
        for rounds in by_scenario.values():
            columns = [[figures[name] for figures in rounds] for name in figures]
            points.append([(statistics.median(c), min(c), max(c)) for c in columns])
        return sorted(points)

    def named(self, pattern):
        """Returns the different first groups of the pattern in the names of scenarios."""
        matches = (pattern.fullmatch(name) for name in self.scenarios)
        return sorted({match[1] for match in matches if match})

    def memory_mb(self, wanted):
        """Returns the memory of the daemons in the wanted loads, in megabytes (-m)."""
        rows = (row for row in self.rows if wanted.fullmatch(row["scenario"]))
        return next(row["parameters"]["memory_mb"] for row in rows)

    def caption(self):
        """Returns a caption of two lines that names the machine and the parameters."""
        row = self.rows[0]
        size = row["parameters"]["document_bytes"]
        size = "documents as recorded" if size == "mix" else f"{size}-byte documents"
        return (
            f"{row['processors']} processors ({row['cpu']}) shared by sender, daemon and endpoint; "
            f"Linux {row['kernel']}\n{size}, TLS, HTTP/{row['parameters']['http']}, {row['mode']}; "
            f"commit {row['commit']}"
        )

    def save(self, figure, axes, name, title):
        """Adds title, legend and caption, and writes the SVG and the PNG file."""
        axes.set_title(title, loc="left", fontweight="bold")
        axes.legend(frameon=False)
        figure.supxlabel(self.caption(), fontsize=8, color="#555555", x=0.01, ha="left")
        figure.savefig(self.folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(self.folder / f"{name}.png", dpi=150)
        plt.close(figure)


def plain(number, _position):
    """Formats a tick without powers of ten."""
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def one_two_five(number, position):
    """Formats a tick between powers of ten: only 2 and 5 get a label."""
    digit = f"{number:e}"[0]
    return plain(number, position) if digit in "25" and number < 1000 else ""


def draw_line(axes, run, contender, x, y, wanted=STEADY, **more):
    """Draws a contender's medians with the spread of their rounds."""
    points = run.points(contender, [x, y], wanted)
    if not points:
        return
    xs = [point[0][0] for point in points]
    ys = [point[1][0] for point in points]
    spread = [
        [point[1][0] - point[1][1] for point in points],
        [point[1][2] - point[1][0] for point in points],
    ]
    style = {"marker": "o", "label": contender, "capsize": 2, "elinewidth": 1}
    axes.errorbar(xs, ys, yerr=spread, **(style | run.style(contender) | more))


def logarithmic(axes, *names):
    for name in names:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_formatter(FuncFormatter(plain))
        axis.set_minor_formatter(FuncFormatter(one_two_five))


def cpu(run):
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    for contender in run.contenders:
        draw_line(axes, run, contender, "delivered_per_s", "cpu_us_per_segment")
    logarithmic(axes, "x", "y")
    axes.set_xlabel("delivered segments per second")
    axes.set_ylabel("CPU time per delivered segment (µs)")
    run.save(figure, axes, "cpu", "CPU time per segment")


def delivered(run, wanted=STEADY, name="delivered", title="Delivered and offered segments"):
    """Draws the delivered rate against the offered rate."""
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    most = 0
    for contender in run.contenders:
        draw_line(axes, run, contender, "offered_per_s", "delivered_per_s", wanted)
        for point in run.points(contender, ["offered_per_s"], wanted):
            most = max(most, point[0][2])
    axes.plot([0, most], [0, most], color="#bbbbbb", linewidth=1, zorder=0, label="all")
    # The line of all offered segments would leave no room for the rest.
    axes.set_ylim(bottom=0, top=delivered_most(run, wanted) * 1.15)
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.set_xlabel("offered segments per second")
    axes.set_ylabel("delivered segments per second")
    run.save(figure, axes, name, title)


def delivered_most(run, wanted):
    """Returns the highest delivered rate of all contenders."""
    points = [
        point[0][2]
        for contender in run.contenders
        for point in run.points(contender, ["delivered_per_s"], wanted)
    ]
    return max(points, default=1)


def share(limit):
    """Says in words what a daemon was held to."""
    kind, number = limit.split("-")
    if kind == "quota":
        return f"{number} % of a processor"
    return f"cpu: {number} in a busy ECS task of 256 units"


def latency(run):
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    kinds = {"p50": {}, "p99": {"marker": "^", "markerfacecolor": "white"}}
    for contender in run.contenders:
        for kind, look in kinds.items():
            name, label = f"latency_{kind}_ms", f"{contender}, {kind}"
            draw_line(axes, run, contender, "delivered_per_s", name, label=label, **look)
    logarithmic(axes, "x", "y")
    axes.set_xlabel("delivered segments per second")
    axes.set_ylabel("time from datagram to delivery (ms)")
    run.save(figure, axes, "latency", "Latency of a segment")


def memory(run):
    figure, axes = plt.subplots(figsize=SIZE_INCHES)
    drawn = set()
    for row in run.rows:
        if row["scenario"] == "outage" and row.get("memory"):
            label = None if row["contender"] in drawn else row["contender"]
            drawn.add(row["contender"])
            seconds, megabytes = zip(*row["memory"], strict=True)
            # Later lines are narrower, because lines may cover each other.
            width = 4 - len(drawn)
            style = run.style(row["contender"]) | {"linewidth": max(width, 1)}
            axes.plot(seconds, megabytes, label=label, **style)
    axes.set_xlabel(
        "seconds; for 7 s the load is 50,000 segments per second and every answer is 503"
    )
    axes.set_ylabel("resident memory (MB)")
    axes.set_ylim(bottom=0)
    run.save(figure, axes, "memory", "Memory while the service fails (-m 256)")


def main():
    run = Run(Path(sys.argv[1]))
    if not run.rows:
        sys.exit("no row counts")
    if any(STEADY.fullmatch(name) for name in run.scenarios):
        for draw in (cpu, delivered, latency):
            draw(run)
    for ms in run.named(DELAYED):
        wanted = re.compile(rf"rate-\d+-{ms}ms")
        title = (
            f"Delivered and offered segments, answers after {ms} ms (-m {run.memory_mb(wanted)})"
        )
        delivered(run, wanted, f"delivered-{ms}ms", title)
    for limit in run.named(LIMITED):
        wanted = re.compile(rf"{limit}-[\d.]+p")
        title = f"Delivered and offered segments, with {share(limit)} (-m {run.memory_mb(wanted)})"
        delivered(run, wanted, f"delivered-{limit}", title)
    if "outage" in run.scenarios:
        memory(run)


if __name__ == "__main__":
    main()
