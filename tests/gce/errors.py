"""Refusals of the stand-in, as Google words them."""

from typing import Any


class ApiError(Exception):
    """One answer that is a refusal."""

    def __init__(self, status: int, reason: str, message: str, plain: bool = False):
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.plain = plain

    def body(self) -> dict[str, Any]:
        """What is sent."""
        if self.plain:  # OAuth 2.0, RFC 6749
            return {"error": self.reason, "error_description": self.message}
        details = [{"message": self.message, "domain": "global", "reason": self.reason}]
        return {"error": {"code": self.status, "message": self.message, "errors": details}}
