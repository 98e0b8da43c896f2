"""Documents that answers are drawn from: cut into chunks, indexed, searched, cited and measured.

An index is an artifact in the store, known by its digest, as a version is. Readers, embedders and bm25s are an extra:
`pip install 'tunegate[knowledge]'`.
"""
