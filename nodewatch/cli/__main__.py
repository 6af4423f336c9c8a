"""`python -m nodewatch.cli`."""

from nodewatch.cli import main

main()
