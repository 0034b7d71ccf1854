"""The one exception of this package."""


class AwsAuthError(Exception):
    """No token, or nobody to accept it. Says what was seen, what to do next, and who can do that.

    No message holds a token or a secret key.
    """

    def __init__(self, seen: str, *, next_action: str, who: str) -> None:
        super().__init__(f"{seen}\n  next: {next_action}\n  who:  {who}")
        self.seen = seen
        self.next_action = next_action
        self.who = who
