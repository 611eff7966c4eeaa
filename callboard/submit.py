"""The write door: one way in for tasks, for the API, Python, schedules and Dramatiq.

It stands in the broker, because Dramatiq's messages and follow-ups come in by it too.
"""

from callboard.broker.blank import Blank
from callboard.broker.submission import (
    FOLLOW_UPS,
    LONGEST_DELAY_MS,
    NEW_WORK,
    PAYLOAD_BYTES,
    Submission,
    SubmitLimits,
    Submitted,
    encode_payload,
    limits_of,
    new_nonce,
    submit,
)

__all__ = [
    "FOLLOW_UPS",
    "LONGEST_DELAY_MS",
    "NEW_WORK",
    "PAYLOAD_BYTES",
    "Blank",
    "Submission",
    "SubmitLimits",
    "Submitted",
    "encode_payload",
    "limits_of",
    "new_nonce",
    "submit",
]
