"""Find, parse and run the functions to study."""
