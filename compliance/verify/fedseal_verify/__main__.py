"""``python -m fedseal_verify``."""

from fedseal_verify.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
