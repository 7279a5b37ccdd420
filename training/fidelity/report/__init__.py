"""The fidelity report for people: sections of report.html, and tables for the terminal."""
