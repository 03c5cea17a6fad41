"""One page that shows a run: `write_report(run_dir)` writes RUN/report.html, which needs nothing but itself."""

from evals.report.page import write_report

__all__ = ["write_report"]
