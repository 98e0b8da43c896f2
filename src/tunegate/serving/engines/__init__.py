"""The programs that generate text, each reached over HTTP."""
