"""What users say of answers: signed response ids, and the log that keeps one verdict for each of them.

Nothing here knows of HTTP, engines or promotions.
"""

from tunegate.feedback.ids import ResponseId, ResponseIds, new_nonce, parse_keys
from tunegate.feedback.votes import FeedbackLog, VoteWriter

__all__ = ["FeedbackLog", "ResponseId", "ResponseIds", "VoteWriter", "new_nonce", "parse_keys"]
