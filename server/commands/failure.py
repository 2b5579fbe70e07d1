"""How a command gives up: one clear line and an exit status."""


class CommandError(Exception):
    """Ends the command with this line on stderr. `status`: 1, the command failed; 2, it was called
    wrongly."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
