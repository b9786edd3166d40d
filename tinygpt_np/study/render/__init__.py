"""Show a study in the terminal and as HTML pages."""
