"""One runner and every benchmark of hyrel."""
