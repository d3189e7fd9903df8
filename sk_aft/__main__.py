"""The command line: ``python -m sk_aft --help`` explains it."""

import sys

from sk_aft._command import main

if __name__ == "__main__":
    sys.exit(main())
