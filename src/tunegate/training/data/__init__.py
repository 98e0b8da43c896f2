"""From files to tokens: readers, formats, tokenize, cache, mixture and packing. Imports no torch."""
