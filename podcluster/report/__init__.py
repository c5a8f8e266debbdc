"""What people see: progress and summaries in the terminal, and figures; all from the tables alone."""
