"""`python -m threadsafe_ocr.cli`, where the command is not on the path."""

import sys

from threadsafe_ocr.cli import main

if __name__ == "__main__":
    sys.exit(main())
