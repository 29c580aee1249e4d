"""`python -m sge2hist` is the command line."""

from sge2hist.cli.main import main

if __name__ == "__main__":
    main()
