"""Labels of one format written in another."""
