"""From a pool of queries to a diverse query set (arXiv 2502.10391, §2.1-2.2 and App. C.1)."""
