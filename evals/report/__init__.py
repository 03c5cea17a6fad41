"""One page that shows a run: `write_report(run_dir)` writes RUN/report.html, one self-contained file."""

from evals.report.page import write_report

__all__ = ["write_report"]
