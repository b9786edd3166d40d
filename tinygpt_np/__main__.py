"""`python -m tinygpt_np` is the command `tinygpt`."""

from tinygpt_np.cli import main

if __name__ == "__main__":
    main()
