"""`python -m gateway_app` is the `gateway` command."""

from gateway_app.cli import main

if __name__ == "__main__":
    main()
