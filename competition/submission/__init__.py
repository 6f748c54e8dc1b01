"""The CSV and what lies beside it: write, check, score, record."""
