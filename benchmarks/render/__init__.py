"""Tables, plots and pages from results files."""
