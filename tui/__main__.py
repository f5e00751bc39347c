"""`python -m inferd.tui`: what `inferd top` runs."""

from .main import main

if __name__ == "__main__":
    main()
