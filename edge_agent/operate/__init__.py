"""The part for operators of a running agent: status, figures, records, and what it tells the server of itself."""
