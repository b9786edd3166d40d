"""The other sides, each in a file named after its library, which is installed by '.[bench]'."""
