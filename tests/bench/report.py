"""Numbers to text: min, median and max of interleaved rounds, and what was aimed at."""

import statistics


class Report:
    """Collects lines for people and values for --json."""

    def __init__(self):
        self.values, self.aims = {}, []

    def heading(self, text):
        print(f"\n{text}")

    def line(self, text):
        print(f"  {text}", flush=True)

    def series(self, key, what, values, unit="", digits=0):
        """One line of min, median, max; nothing is printed for an empty series."""
        if not values:
            return
        self.values[key] = list(values)
        low, mid, high = (f"{x:,.{digits}f}" for x in
                          (min(values), statistics.median(values), max(values)))
        self.line(f"{what:<46}{low:>12}{mid:>12}{high:>12}  {unit}".rstrip())

    def columns(self):
        self.line(f"{'':<46}{'min':>12}{'median':>12}{'max':>12}")

    def value(self, key, what, value, unit="", digits=1):
        self.values[key] = value
        self.line(f"{what:<46}{value:>12,.{digits}f}  {unit}".rstrip())

    def aim(self, what, value, holds, wanted, digits=2):
        """A number against an aim: said, never enforced."""
        word = "aim met" if holds else "aim missed"
        self.aims.append({"what": what, "value": value, "wanted": wanted, "met": holds})
        self.line(f"{word:<12}{what:<46}{value:>12,.{digits}f}  wanted {wanted}")


def median(values):
    return statistics.median(values) if values else 0.0


def ratios(above, below):
    """Round by round: both were measured side by side."""
    return [a / b for a, b in zip(above, below) if b > 0]
