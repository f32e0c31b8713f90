"""`python -m liter_llm` is the command `liter-llm`."""

from .cli import main

if __name__ == "__main__":
    main()
