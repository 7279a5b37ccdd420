"""Reports on a build: report.json, the tables in the terminal, and the page report.html."""
