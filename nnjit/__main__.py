"""`python -m nnjit` is `nnjit`."""

from nnjit.cli.main import main

if __name__ == "__main__":
    main()
