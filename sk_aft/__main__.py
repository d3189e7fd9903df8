"""Run the quickstart: ``python -m sk_aft`` or ``python -m sk_aft images``."""

from sk_aft._quickstart import main

if __name__ == "__main__":
    main()
