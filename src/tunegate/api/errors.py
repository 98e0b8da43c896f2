"""What can go wrong, as one tree.

TunegateError              exit status 1: it was tried and failed
├── UsageError             exit status 2: it was asked wrongly
├── StoreError             the model store can't be reached, or refuses
│   ├── NotFoundError      no such version or document
│   ├── CredentialsError   there are no credentials, or they are refused or may not do this
│   ├── UnavailableError   exit status 75: it is away, or fails itself; the same may work later
│   └── DigestError        bytes differ from their manifest
├── PromptError            a prompt template, or an answer to it, can't be used
├── KnowledgeError         a document or an index of a knowledge base can't be used
├── ToolError              a tool can't do what a model asks of it
├── DataError              a data set or suite can't be used
├── ModelError             a model folder can't be used
├── TrainingError          a training run can't start or resume
│   └── Preempted          exit status 143: it was asked to stop, kept a checkpoint, and can resume
├── EvaluationError        an evaluation can't be made
├── ServingError           a server or its engine can't run
├── ProcessError           a child process did not start
├── DecisionRecordError    a decision record is missing, can't be written, or does not hold
└── FeedbackError          feedback that is refused
    └── ForgedIdError      a response id that this deployment did not sign

Every message is one sentence (or two) that names the remedy.
"""

from __future__ import annotations


class TunegateError(Exception):
    """Anything tunegate refuses or fails at; the message is for the user as it stands."""

    exit_code = 1


class UsageError(TunegateError):
    exit_code = 2


class StoreError(TunegateError):
    pass


class NotFoundError(StoreError):
    pass


class CredentialsError(StoreError):
    pass


class UnavailableError(StoreError):
    exit_code = 75  # EX_TEMPFAIL of sysexits.h: supervisors try again, and count it as no failure


class DigestError(StoreError):
    pass


class PromptError(TunegateError):
    pass


class KnowledgeError(TunegateError):
    pass


class ToolError(TunegateError):
    pass


class DataError(TunegateError):
    pass


class ModelError(TunegateError):
    pass


class TrainingError(TunegateError):
    pass


class Preempted(TrainingError):  # noqa: N818 - what it is called everywhere
    exit_code = 143  # as a process ended by SIGTERM, which supervisors start again


class EvaluationError(TunegateError):
    pass


class ServingError(TunegateError):
    pass


class ProcessError(TunegateError):
    pass


class DecisionRecordError(TunegateError):
    pass


class FeedbackError(TunegateError):
    pass


class ForgedIdError(FeedbackError):
    pass
