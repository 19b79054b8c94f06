"""`python -m studio` is `studio`. Knows: where the commands begin. Does not know: any of them."""

from studio.cli.main import main

if __name__ == "__main__":
    main()
