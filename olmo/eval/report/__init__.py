"""The report: one self-contained page from the files of finished runs."""

from olmo.eval.report.build import ReportRun, SampleVideo, build_report, read_curve

__all__ = ["ReportRun", "SampleVideo", "build_report", "read_curve"]
