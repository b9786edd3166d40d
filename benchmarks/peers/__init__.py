"""Other libraries as candidates, each in a file of its name; installed by '.[bench]'."""
