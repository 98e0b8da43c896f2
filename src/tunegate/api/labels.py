"""The label and annotation keys on objects in a cluster, each under one name."""

from __future__ import annotations

GROUP = "tunegate.io"

# Who made an object: on everything that the operator applies.
MANAGED_BY = {"app.kubernetes.io/managed-by": "tunegate"}

# Label: the name of the PromotionPolicy that an object belongs to.
POLICY = f"{GROUP}/policy"
# Label: the model's name in the store; a training job carries it, too.
MODEL = f"{GROUP}/model"
# Label: the training run that made a version; a training job carries it, too.
RUN = f"{GROUP}/run"
# Label: the short digest of the version that an object is about.
VERSION = f"{GROUP}/version"
# Label: the short digest of the base whose versions share an engine.
BASE = f"{GROUP}/base"
# Label: the suite that an evaluation Job measures.
SUITE = f"{GROUP}/suite"

# Label: the queue of Kueue that decides when the pods of an object start.
QUEUE = "kueue.x-k8s.io/queue-name"

# Annotation: the full digest of the version that an object is about, which is too long for a label.
DIGEST = f"{GROUP}/digest"
# Annotation on a training job: the numbers for which it was suspended; a job that has it is never suspended again.
STOPPED = f"{GROUP}/stopped"
# Annotation: the object as it was last applied, to see what has to change.
APPLIED = f"{GROUP}/applied"
# Annotation on a PromotionPolicy, by a person: put back what was edited by hand; each new value asks once.
RESTORE = f"{GROUP}/restore"
# Annotation on a PromotionPolicy, by a person: make its running servers as it says now; each new value asks once.
ROLLOUT = f"{GROUP}/rollout"
