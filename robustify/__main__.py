"""`python -m robustify`: the command line."""

from robustify.cli.__main__ import main

if __name__ == "__main__":
    main()
