"""The report: one self-contained page about datasets, stores and runs. Entry: ``build.build_report``."""
